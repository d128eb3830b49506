"""Each failure of W&B gives its error and exit code, without a secret and within the time.

The real client, started by the store, against a server that fails on demand.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from nemotron_exec.artifacts.reference import parse_reference
from nemotron_exec.errors import LaunchError, TemporaryError
from nemotron_exec.message import Messages
from nemotron_exec.origin import Origin
from nemotron_exec.stores.wandb.store import WandbStore
from wandb_backend import API_KEY

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from nemotron_exec.artifacts.artifact import Artifact
    from wandb_backend import Backend

DATA = bytes(range(256)) * 8_000  # 2 MB


class Store:
    """A store for this test, with its messages."""

    def __init__(self, environ: dict[str, str], cache: Path) -> None:
        self.environ = environ
        self.cache = cache
        self.said = io.StringIO()

    def resolve(self, *texts: str, timeout: float = 60, **more: Any) -> list[Artifact]:
        references = [parse_reference(f"key{i}", text, Origin("cfg.yaml", i + 1)) for i, text in enumerate(texts)]
        store = WandbStore(
            **{"project": "nemotron", "entity": None, **more},
            cache_directory=str(self.cache),
            environ=self.environ,
            messages=Messages(stream=self.said),
        )
        return store.resolve(references, progress=lambda *_: None, timeout=timeout)

    def error(self, *texts: str, **more: Any) -> LaunchError:
        """The error. Checks that it has no secret, and that no process is left."""
        with pytest.raises(LaunchError) as caught:
            self.resolve(*texts, **more)
        assert API_KEY not in str(caught.value) + self.said.getvalue()
        assert "Traceback" not in str(caught.value)
        assert_alone()
        return caught.value


def assert_alone() -> None:
    assert [child.name() for child in psutil.Process().children(recursive=True) if "wandb" in child.name()] == []
    assert "WANDB_SERVICE" not in os.environ


@pytest.fixture
def store(wandb_environ: dict[str, str], tmp_path: Path) -> Store:
    return Store(wandb_environ, tmp_path / "cache")


# ---------------------------------------------------------------------- keys


def test_no_key_is_an_error_before_any_request(wandb_backend: Backend, store: Store) -> None:
    del store.environ["WANDB_API_KEY"]
    error = store.error("data:latest")
    assert error.exit_code == 125
    assert "run.key0: data:latest (cfg.yaml:1)" in str(error)
    assert all(word in error.remedy for word in ("WANDB_API_KEY", "netrc", "wandb login"))
    assert wandb_backend.log == []


def test_a_key_from_netrc_is_used(wandb_backend: Backend, store: Store, tmp_path: Path) -> None:
    del store.environ["WANDB_API_KEY"]
    netrc = tmp_path / "netrc"
    host = wandb_backend.url.removeprefix("http://")
    netrc.write_text(f"machine {host}\n  login user\n  password {API_KEY}\n")
    netrc.chmod(0o600)
    store.environ["NETRC"] = str(netrc)
    wandb_backend.seed("team/nemotron/data", files={"a": b"1"})
    assert store.resolve("data")[0].version == "v0"


@pytest.mark.wandb_matrix
def test_a_wrong_key_is_said_at_once_and_not_shown(wandb_backend: Backend, store: Store) -> None:
    store.environ["WANDB_API_KEY"] = wrong = "local-" + "f0" * 20
    error = store.error("data:latest")
    assert error.exit_code == 125
    assert "does not accept the API key (from WANDB_API_KEY)" in error.found
    assert "wandb login" in error.remedy
    assert wrong not in str(error)
    assert len([one for one in wandb_backend.log if "W&B" in one.user_agent]) == 1  # the client asks once
    assert len(wandb_backend.log) <= 2  # and one more request explains the error


def test_a_malformed_key_is_not_shown(wandb_backend: Backend, store: Store) -> None:
    store.environ["WANDB_API_KEY"] = "short-secret"
    error = store.error("data:latest")
    assert error.exit_code == 125
    assert "short-secret" not in str(error)


@pytest.mark.wandb_matrix
def test_no_access_is_not_tried_again(wandb_backend: Backend, store: Store) -> None:
    wandb_backend.seed("team/nemotron/data", files={"a": b"1"})
    wandb_backend.fail("Artifact*ByName", status=403, times=None)
    error = store.error("data:latest")
    assert error.exit_code == 125
    assert "denies access" in error.found
    assert len(wandb_backend.find("Artifact(Membership)?ByName")) == 1


# ---------------------------------------------------------------------- names


@pytest.mark.wandb_matrix
@pytest.mark.parametrize(
    ("text", "found", "near"),
    [
        ("SFTDataArtifact:latest", "no artifact 'SFTDataArtifact'", "SFTDataArtifact-default"),
        ("SFTDataArtifact-default:v9", "no version or alias 'v9'", "v1"),
        ("SFTDataArtifact-default:prd", "no version or alias 'prd'", "prod"),
        ("nemotrom/SFTDataArtifact-default:latest", "no project 'nemotrom'", "nemotron"),
        ("taem/nemotron/SFTDataArtifact-default:latest", "no project of the entity 'taem'", "team"),
    ],
)
def test_what_does_not_exist_is_named_with_what_is_near(
    wandb_backend: Backend, store: Store, text: str, found: str, near: str
) -> None:
    for _ in range(2):
        wandb_backend.seed(
            "team/nemotron/SFTDataArtifact-default", files={"a": os.urandom(8)}, aliases=("latest", "prod")
        )
    wandb_backend.seed("team/nemotron/unrelated", files={"a": b"1"}, type="model")
    error = store.error(text)
    assert error.exit_code == 125
    assert f"{text} (cfg.yaml:1)" in error.wanted
    assert found in error.found
    assert near in error.remedy
    assert wandb_backend.unknown == []


def test_the_error_that_the_user_must_mend_comes_first(wandb_backend: Backend, store: Store) -> None:
    wandb_backend.seed("team/nemotron/flaky", files={"a": DATA})
    wandb_backend.fail("GET flaky/a", corrupt=True, times=None)
    # What explains the unknown name comes when the download has failed already.
    wandb_backend.fail("ProjectArtifactTypes", delay=2.0)
    assert "no artifact 'absent'" in store.error("flaky", "absent").found


# ---------------------------------------------------------------------- the server


@pytest.mark.ci
def test_a_server_that_is_down_is_no_wrong_key(wandb_backend: Backend, store: Store) -> None:
    wandb_backend.close()
    began = time.monotonic()
    error = store.error("data:latest", timeout=10)
    assert isinstance(error, TemporaryError)
    assert "refuses connections" in error.found
    assert "key" not in str(error).replace("key0", "")
    assert time.monotonic() - began < 60
    assert "trying again" in store.said.getvalue()


@pytest.mark.ci
def test_a_name_that_dns_does_not_know_is_said(store: Store) -> None:
    store.environ["WANDB_BASE_URL"] = "http://wandb.invalid"
    error = store.error("data:latest", timeout=10)
    assert error.exit_code == 75
    assert "wandb.invalid is not known here (DNS)" in error.found


@pytest.mark.parametrize("status", [503, *(pytest.param(status, marks=pytest.mark.ci) for status in (500, 429))])
def test_a_burst_of_errors_passes(wandb_backend: Backend, store: Store, status: int) -> None:
    wandb_backend.seed("team/nemotron/data", files={"a": b"1"})
    for operation in ("Viewer", "ArtifactMembershipByName", "FetchArtifactManifest", "*Files", "GET data/*"):
        wandb_backend.fail(operation, status=status, times=2, retry_after=0)
    assert store.resolve("data")[0].version == "v0"


@pytest.mark.ci
@pytest.mark.wandb_matrix
def test_errors_without_end_are_one_that_may_pass(wandb_backend: Backend, store: Store) -> None:
    wandb_backend.fail("graphql", status=503, times=None)
    error = store.error("data:latest", timeout=10)
    assert error.exit_code == 75
    assert "HTTP 503" in error.found


@pytest.mark.ci
def test_a_look_up_that_never_answers_ends_with_the_time(wandb_backend: Backend, store: Store) -> None:
    wandb_backend.seed("team/nemotron/data", files={"a": b"1"})
    wandb_backend.fail("ArtifactMembershipByName", delay=600, times=None)
    began = time.monotonic()
    error = store.error("data:latest", timeout=8)
    assert error.exit_code == 75
    assert "--timeout" in error.remedy
    assert time.monotonic() - began < 60


@pytest.mark.ci
def test_a_slow_server_is_waited_for(wandb_backend: Backend, store: Store) -> None:
    wandb_backend.seed("team/nemotron/data", files={"a": b"1"})
    wandb_backend.latency = 0.5
    assert store.resolve("data")[0].version == "v0"


# ---------------------------------------------------------------------- downloads


@pytest.mark.ci
def test_a_download_that_is_cut_and_then_stalls_arrives(wandb_backend: Backend, store: Store) -> None:
    wandb_backend.seed("team/nemotron/data", files={"a": DATA})
    wandb_backend.fail("GET data/a", cut=500_000)
    wandb_backend.fail("GET data/a", stall=500_000)
    (artifact,) = store.resolve("data", stall=1.0)
    with open(os.path.join(artifact.path, "a"), "rb") as file:
        assert file.read() == DATA
    assert not os.listdir(store.cache / "wandb" / ".partial")


def test_a_checksum_that_stays_wrong_leaves_nothing_in_the_cache(wandb_backend: Backend, store: Store) -> None:
    version = wandb_backend.seed("team/nemotron/data", files={"a": DATA})
    wandb_backend.fail("GET data/a", corrupt=True, times=None)
    error = store.error("data")
    assert error.exit_code == 75
    assert "a does not match its checksum" in error.found
    assert not (store.cache / "wandb" / version.digest).exists()
    wandb_backend.faults.clear()
    assert store.resolve("data")[0].version == "v0"


def test_a_full_disk_is_found_before_the_first_byte(wandb_backend: Backend, store: Store) -> None:
    version = wandb_backend.seed("team/nemotron/data", files={"a": b"1"})
    version.manifest["contents"]["a"]["size"] = 10**18
    error = store.error("data")
    assert error.exit_code == 75
    assert "1000.0 PB are needed in" in error.found
    assert str(store.cache) in error.found
    assert wandb_backend.operations("GET data/a") == 0


def test_a_cache_that_is_not_ours_is_an_error(wandb_backend: Backend, store: Store) -> None:
    wandb_backend.seed("team/nemotron/data", files={"a": b"1"})
    store.cache.mkdir()
    (store.cache / "wandb").symlink_to("/tmp")
    error = store.error("data")
    assert error.exit_code == 125
    assert "a symbolic link" in error.found
    assert "--cache-dir" in error.remedy


def test_two_launchers_download_the_same_artifact_once(wandb_backend: Backend, store: Store) -> None:
    wandb_backend.seed("team/nemotron/data", files={"a": DATA, "b": DATA[:1000]})
    wandb_backend.fail("GET data/a", delay=3)
    other = Store(store.environ, store.cache)
    found: list[Artifact] = []
    threads = [threading.Thread(target=lambda s=s: found.extend(s.resolve("data"))) for s in (store, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len({artifact.path for artifact in found}) == 1
    assert len(found) == 2
    assert wandb_backend.operations("GET data/a") == 1
    assert wandb_backend.operations("GET data/b") == 1


@pytest.mark.ci
def test_an_artifact_may_consist_of_many_files(wandb_backend: Backend, store: Store) -> None:
    wandb_backend.seed("team/nemotron/data", files={f"d/{i:04}": str(i).encode() for i in range(1200)})
    (artifact,) = store.resolve("data")
    assert len(os.listdir(os.path.join(artifact.path, "d"))) == 1200
    assert len(wandb_backend.find(r"\w*Files")) == 2  # pages of 1000


@pytest.mark.ci
def test_a_stalled_download_ends_with_the_time_and_is_resumed_by_the_next_job(
    wandb_backend: Backend, store: Store
) -> None:
    version = wandb_backend.seed("team/nemotron/data", files={"a": DATA})
    wandb_backend.fail("GET data/a", stall=1_000_000)
    error = store.error("data", timeout=6)
    assert error.exit_code == 75
    assert not (store.cache / "wandb" / version.digest).exists()
    (artifact,) = store.resolve("data")
    with open(os.path.join(artifact.path, "a"), "rb") as file:
        assert file.read() == DATA
    assert wandb_backend.find("GET data/a")[-1].variables["range"].startswith("bytes=")


def test_what_was_abandoned_makes_room_for_the_next_download(wandb_backend: Backend, store: Store) -> None:
    wandb_backend.seed("team/nemotron/data", files={"a": b"1"})
    partial = store.cache / "wandb" / ".partial" / "0123456789abcdef"
    partial.mkdir(parents=True)
    for directory in (store.cache, *partial.parents[:2]):
        directory.chmod(0o700)
    os.utime(partial, (1e9, 1e9))
    store.resolve("data")
    assert not partial.exists()


def test_a_process_that_cannot_be_started_is_an_error(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/nonexistent/python")
    error = store.error("data")
    assert error.exit_code == 75
    assert "no such file or directory (/nonexistent/python)" in error.found


def test_no_message_holds_a_signed_url() -> None:
    from nemotron_exec.stores.wandb.faults import first_line

    error = ValueError("403 for url: https://s3.example.com/b/wandb_manifest.json?X-Amz-Signature=c0ffee&x=1 'y'")
    assert first_line(error) == "ValueError: 403 for url: https://s3.example.com/b/wandb_manifest.json?*** 'y'"


# ---------------------------------------------------------------------- what is left


def test_nothing_of_the_client_is_left_in_this_process(
    wandb_backend: Backend, store: Store, as_process_1: Callable[[], None]
) -> None:
    wandb_backend.seed("team/nemotron/data", files={"a": b"1"})
    before = psutil.Process().children()
    # Another test in this process may have imported the client.
    modules = {name for name in sys.modules if name.partition(".")[0] == "wandb"}
    as_process_1()
    store.resolve("data")
    assert_alone()
    assert [child for child in psutil.Process().children() if child not in before] == []
    assert {name for name in sys.modules if name.partition(".")[0] == "wandb"} == modules


def test_the_client_is_never_imported_by_the_one_who_asks(wandb_backend: Backend, store: Store) -> None:
    wandb_backend.seed("team/nemotron/data", files={"a": b"1"})
    code = (
        "import sys\n"
        "from nemotron_exec.message import Messages\n"
        "from nemotron_exec.artifacts.reference import parse_reference\n"
        "from nemotron_exec.origin import Origin\n"
        "from nemotron_exec.stores.wandb.store import WandbStore\n"
        "import os\n"
        "store = WandbStore(project='nemotron', entity=None, cache_directory=sys.argv[1], environ=dict(os.environ),\n"
        "                   messages=Messages(stream=sys.stderr))\n"
        "found = store.resolve([parse_reference('data', 'data', Origin('cfg.yaml', 1))],\n"
        "                      progress=lambda *_: None, timeout=60)\n"
        "print(found[0].version, sorted(name for name in sys.modules if name.partition('.')[0] == 'wandb'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(store.cache)], env=store.environ, capture_output=True, text=True, check=True
    )
    assert done.stdout == "v0 []\n", done.stderr


@pytest.fixture
def as_process_1() -> Any:
    """Make this process adopt its orphans, like process 1 of a container (prctl(2))."""
    import ctypes

    prctl = ctypes.CDLL(None, use_errno=True).prctl
    subreaper = 36
    yield lambda: prctl(subreaper, 1, 0, 0, 0)
    prctl(subreaper, 0, 0, 0, 0)
