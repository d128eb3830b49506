"""The Hugging Face hub as a store, with the real huggingface_hub against a loopback hub."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hub_backend import TOKEN, RateLimit
from hub_store import ANOTHER, FILES, Store, content
from nemotron_exec.errors import LaunchError, TemporaryError

pytestmark = pytest.mark.hub_matrix


@pytest.fixture
def store(hub, tmp_path):
    return lambda **how: Store(hub, tmp_path, **how)


def test_a_branch_becomes_a_commit_with_all_its_files_and_fields(hub, store):
    commit = hub.seed("org/model", FILES, card={"license": "mit", "language": ["en"]})
    asked = store()
    (model,) = asked("hf://org/model")
    assert content(model.path) == FILES
    assert model.path.startswith(str(asked.home / "hf/hub/models--org--model/snapshots"))
    assert (model.version, model.digest, model.type, model.name) == (commit[:12], commit, "model", "org/model")
    assert model.qualified_name == f"hf://org/model@{commit}"
    assert model.field("id") == "org/model"
    assert model.field("revision") == commit
    assert model.field("metadata.hidden_size") == 64
    assert model.field("metadata.language") == ["en"]
    assert model.field("metadata.license") == "from config"
    assert model.source == f"{hub.url}/org/model/tree/{commit}"
    assert hub.unknown == []


def test_a_tag_a_branch_and_a_commit_are_revisions_and_data_sets_are_repositories(hub, store):
    first = hub.seed("org/model", {"config.json": b"{}"}, tag="v1")
    second = hub.seed("org/model", {"config.json": b'{"a": 1}'}, branch="feature/x")
    hub.seed("org/data", {"train.parquet": b"rows", "dataset.json": b"{}"}, kind="dataset")
    tagged, branch, pinned, data = store()(
        "hf://org/model@v1", "hf://org/model@feature/x", f"hf://org/model@{first}", "hf://datasets/org/data"
    )
    assert [tagged.digest, branch.digest, pinned.digest] == [first, second, first]
    assert data.type == "dataset"
    assert data.qualified_name == f"hf://datasets/org/data@{data.digest}"
    assert set(content(data.path)) == {"train.parquet", "dataset.json"}


def test_patterns_choose_the_files_and_a_later_wider_one_fetches_the_rest(hub, store):
    hub.seed("org/model", FILES)
    (some,) = store()({"hf": "org/model", "include": ["*.json", "tokenizer/"], "exclude": ["model-1*"]})
    assert set(content(some.path)) == {"config.json", "tokenizer/vocab.txt"}
    (everything,) = store()("hf://org/model")
    assert everything.path == some.path
    assert content(everything.path) == FILES
    assert hub.operations("GET org/model/config.json") == 1


def test_a_commit_that_is_here_needs_no_request_and_no_huggingface_hub(hub, store):
    commit = hub.seed("org/model", FILES)
    store()("hf://org/model")
    asked = hub.operations()
    (model,) = store()(f"hf://org/model@{commit}")
    assert model.digest == commit
    assert hub.operations() == asked


def test_a_file_that_a_cleaner_took_or_cut_is_fetched_again(hub, store):
    commit = hub.seed("org/model", FILES)
    (model,) = store()("hf://org/model")
    (Path(model.path) / "config.json").unlink()
    os.truncate(os.path.realpath(Path(model.path) / "model-2.safetensors"), 10)
    (again,) = store()(f"hf://org/model@{commit}")
    assert content(again.path) == FILES
    assert hub.operations("LFS org/model/model-1.safetensors") == 1
    assert hub.operations("LFS org/model/model-2.safetensors") == 2


@pytest.mark.parametrize("fault", [{"cut": 1000}, {"hang_up": True}, {"corrupt": True}, {"status": 503}])
def test_a_download_that_breaks_or_lies_is_made_good(hub, store, fault):
    hub.seed("org/model", FILES)
    hub.fail("LFS org/model/model-1.safetensors", **fault)
    (model,) = store()("hf://org/model")
    assert content(model.path) == FILES


def test_bytes_that_stay_wrong_are_never_an_artifact(hub, store):
    hub.seed("org/model", FILES)
    hub.fail("LFS org/model/model-2.safetensors", corrupt=True, times=None)
    with pytest.raises(TemporaryError, match=r"model-2.safetensors came twice with other bytes"):
        store()("hf://org/model")
    hub.faults.clear()
    (model,) = store()("hf://org/model")
    assert content(model.path) == FILES


@pytest.mark.parametrize("name", ["info org/model@main", "tree org/model@*", "HEAD org/model/config.json"])
def test_a_rate_limit_is_waited_for_as_the_hub_says(hub, store, name):
    hub.seed("org/model", FILES)
    limit = {"RateLimit": '"api";r=0;t=1', "RateLimit-Policy": '"fixed window";"api";q=500;w=300'}
    # For a file's headers, huggingface_hub repeats the request once at once before it waits.
    hub.fail(name, status=429, headers=limit, times=2 if "HEAD" in name else 1)
    asked = store()
    (model,) = asked("hf://org/model")
    assert content(model.path) == FILES
    waited = [line for line in asked.said.splitlines() if "waiting 2 s, as it asks" in line]
    assert waited, asked.said
    times = [item.at for item in hub.find(name.replace("*", ".*"))]
    assert max(times) - min(times) >= 1


@pytest.mark.ci
def test_a_quota_of_requests_delays_all_references_together(hub, store):
    for number in range(3):
        hub.seed(f"org/model{number}", {"config.json": b"{}"})
    hub.limits["api"] = RateLimit(4, 2)
    asked = store()
    found = asked(*(f"hf://org/model{number}" for number in range(3)))
    assert len(found) == 3
    assert "limits requests" in asked.said


def test_a_wait_that_is_longer_than_the_time_left_is_refused_at_once(hub, store):
    hub.seed("org/model", FILES)
    hub.fail("info *", status=429, headers={"RateLimit": '"api";r=0;t=250'}, times=None)
    with pytest.raises(TemporaryError, match=r"HTTP 429.*asks to wait 251 s, longer than the time that is left"):
        store()("hf://org/model", timeout=20)


def test_a_gated_model_needs_a_token_that_is_admitted(hub, store):
    hub.seed("org/gated", FILES, gated="manual")
    with pytest.raises(LaunchError, match=r"is gated, and there is no token.*Accept its conditions at .*/org/gated"):
        store()("hf://org/gated")
    with pytest.raises(LaunchError, match=r"is gated, and the owner of the token has no access"):
        store(token=TOKEN)("hf://org/gated")
    hub.model.find("model", "org/gated").admitted.add(TOKEN)
    (model,) = store(token=TOKEN)("hf://org/gated")
    assert content(model.path) == FILES


def test_a_bad_token_is_named_and_never_shown(hub, store):
    hub.seed("org/model", FILES)
    asked = store(token="hf_NotTheRightTokenAtAll")
    with pytest.raises(LaunchError, match=r"does not accept the token \(HTTP 401\)") as caught:
        asked("hf://org/model")
    assert "NotTheRight" not in str(caught.value) + asked.said


def test_a_private_repository_is_for_a_token(hub, store):
    hub.seed("org/private", FILES, private=True)
    with pytest.raises(LaunchError, match=r"shows no model org/private without a token.*set HF_TOKEN"):
        store()("hf://org/private")
    (model,) = store(token=TOKEN)("hf://org/private")
    assert content(model.path) == FILES


def test_an_unknown_repository_is_told_from_a_data_set_of_that_name(hub, store):
    hub.seed("org/data", FILES, kind="dataset")
    with pytest.raises(
        LaunchError, match=r"has no model org/data, but a data set of that name. Write hf://datasets/org/data"
    ):
        store()("hf://org/data")
    with pytest.raises(LaunchError, match=r"shows no model org/nothing"):
        store(token=TOKEN)("hf://org/nothing")


@pytest.mark.parametrize(
    ("revision", "said"),
    [("v1.0", "Nearest that exist: v1.1"), ("{short}", "Write the whole commit: {commit}"), ("0" * 40, "main")],
)
def test_an_unknown_revision_comes_with_the_nearest(hub, store, revision, said):
    commit = hub.seed("org/model", FILES, tag="v1.1")
    with pytest.raises(LaunchError) as caught:
        store()(f"hf://org/model@{revision.format(short=commit[:8])}")
    assert "the model has no revision" in str(caught.value)
    assert said.format(commit=commit) in str(caught.value)


def test_a_full_cache_is_enough_without_a_network(hub, store):
    commit = hub.seed("org/model", FILES)
    store()("hf://org/model")
    hub.close()
    asked = store()
    (model,) = asked("hf://org/model")
    assert model.digest == commit
    assert content(model.path) == FILES
    warnings = [line for line in asked.said.splitlines() if "warning" in line]
    assert len(warnings) == 1
    assert f"is commit {commit} by the cache" in warnings[0]
    assert "refuses connections" in warnings[0]


def test_offline_by_the_users_setting_makes_no_request(hub, store):
    hub.seed("org/model", FILES)
    store()("hf://org/model")
    asked = hub.operations()
    offline = store(HF_HUB_OFFLINE="1")
    assert content(offline("hf://org/model")[0].path) == FILES
    assert "HF_HUB_OFFLINE is set" in offline.said
    with pytest.raises(TemporaryError, match=r"HF_HUB_OFFLINE is set, and the cache .* has nothing of it"):
        offline("hf://org/other")
    assert hub.operations() == asked


def test_a_part_of_a_cache_without_a_network_names_what_is_missing(hub, store):
    hub.seed("org/model", FILES)
    (model,) = store()("hf://org/model")
    (Path(model.path) / "model-2.safetensors").unlink()
    (Path(model.path) / "config.json").unlink()
    hub.close()
    with pytest.raises(TemporaryError, match=r"lacks 2 of 5 files of commit \w+: config.json, model-2.safetensors"):
        store()("hf://org/model")


def test_a_hub_that_is_down_from_the_start_is_temporary(hub, store):
    hub.close()
    with pytest.raises(TemporaryError, match=r"refuses connections, and the cache .* has nothing of it"):
        store()("hf://org/model")


@pytest.mark.ci
def test_a_hub_that_goes_down_in_the_middle_says_so(hub, store):
    hub.seed("org/model", FILES)
    hub.fail("LFS org/model/*", status=500, times=None)
    with pytest.raises(TemporaryError, match=r"answers HTTP 500|HTTP 500"):
        store()("hf://org/model", timeout=15)
    hub.faults.clear()
    assert content(store()("hf://org/model")[0].path) == FILES


def test_a_cache_that_cannot_be_written_names_its_owner(hub, store, tmp_path):
    hub.seed("org/model", FILES)
    (tmp_path / "hf").write_text("no directory")
    with pytest.raises(LaunchError, match=r"cannot be written \(not a directory"):
        store()("hf://org/model")


def test_a_cache_of_another_user_is_refused_with_its_owner(hub, tmp_path):
    hub.seed("org/model", FILES)
    cache = tmp_path / "hf" / "hub"
    cache.mkdir(parents=True)
    owner = os.geteuid()
    if owner == 0:
        owner = 12345
        os.chown(cache, owner, -1)
    cache.chmod(0o555)
    give_up = "-dac_override,-dac_read_search,-fowner"
    as_anybody = ["setpriv", f"--bounding-set={give_up}", f"--inh-caps={give_up}"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*as_anybody, sys.executable, "-c", ANOTHER, hub.url,
         tmp_path],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert f"{cache} cannot be written (permission denied" in done.stdout, done.stderr
    assert "Give a directory of yours with HF_HOME" in done.stdout
    if os.geteuid() == 0:
        assert f"belongs to user {owner}" in done.stdout
    assert [item.name for item in hub.find("(HEAD|GET|LFS) .*")] == []


def test_stale_lock_files_of_dead_processes_keep_nobody(hub, store, tmp_path):
    hub.seed("org/model", FILES)
    locks = tmp_path / "hf/hub/.locks/models--org--model"
    locks.mkdir(parents=True)
    for data in FILES.values():
        for digest in (hashlib.sha256(data).hexdigest(), hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()):
            (locks / f"{digest}.lock").write_text("")
    assert content(store()("hf://org/model")[0].path) == FILES


@pytest.fixture
def stale(tmp_path):
    """Write the lock files that a dead client has left for every file."""

    def write(text):
        locks = tmp_path / "hf/hub/.locks/models--org--model"
        locks.mkdir(parents=True)
        for data in FILES.values():
            for digest in (hashlib.sha256(data).hexdigest(), hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()):
                (locks / f"{digest}.lock").write_text(text)
        return locks

    return write


@pytest.mark.ci
def test_without_flock_a_dead_lock_of_this_machine_keeps_nobody(hub, stale, tmp_path):
    hub.seed("org/model", FILES)
    ended = subprocess.run(["sh", "-c", "echo $$"], capture_output=True, text=True, check=True).stdout.strip()
    stale(f"{ended}\n{socket.gethostname()}\n")
    done = subprocess.run([*WITHOUT_FLOCK, sys.executable, "-c", ANOTHER, hub.url, tmp_path], timeout=60, check=False)
    assert done.returncode == 0
    (snapshot,) = tmp_path.glob("hf/hub/models--org--model/snapshots/*")
    assert content(snapshot) == FILES


@pytest.mark.ci
def test_without_flock_a_dead_lock_of_another_machine_is_named(hub, stale, tmp_path):
    hub.seed("org/model", FILES)
    locks = stale("77\nanother-machine\n")
    done = subprocess.run(
        [*WITHOUT_FLOCK, sys.executable, "-c", ANOTHER, hub.url, tmp_path, "9"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert f"or has left its lock behind: waiting for {locks}/" in done.stdout, done.stderr
    assert "the time limit (--timeout) has passed, and another program holds the lock of a file" in done.stdout
    assert f"Remove {locks}/" in done.stdout


# Makes flock(2) fail as on a file system without it.
WITHOUT_FLOCK = ["strace", "-qqq", "-f", "-o", os.devnull, "-e", "trace=flock", "-e", "inject=flock:error=ENOSYS"]


def test_a_disk_without_room_is_known_before_the_download(hub, store, monkeypatch):
    hub.seed("org/model", FILES)
    # The hub's own size counts, and no disk has so much room.
    monkeypatch.setattr("hub_backend.model.File.entry", _huge())
    with pytest.raises(TemporaryError, match=r"PB are needed in .*are available there"):
        store()("hf://org/model")
    assert hub.operations("(HEAD|GET|LFS) .*") == 0


def _huge():
    def entry(file):
        lfs = {"oid": file.sha256, "size": 1 << 58, "pointerSize": 134}
        return {
            "type": "file",
            "oid": file.oid,
            "size": 1 << 58,
            "path": file.path,
            **({"lfs": lfs} if file.lfs else {}),
        }

    return entry


def test_two_stores_at_once_download_one_time(hub, tmp_path):
    hub.seed("org/model", FILES)
    hub.bandwidth = 500_000
    found, threads = [], []
    for _ in range(3):
        threads.append(threading.Thread(target=lambda: found.extend(Store(hub, tmp_path)("hf://org/model"))))
        threads[-1].start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert content(found[0].path) == FILES
    for name in FILES:
        assert hub.operations(f"(LFS|GET) org/model/{name}") <= 2
    assert hub.operations("LFS org/model/model-1.safetensors") == 1


def test_a_download_is_shown_and_told_while_it_lasts(hub, store):
    hub.seed("org/model", FILES)
    hub.bandwidth = 400_000
    asked = store()
    asked("hf://org/model")
    assert asked.progress.count("hf://org/model") >= 2


@pytest.mark.ci
def test_a_launcher_that_dies_takes_the_download_with_it_and_the_next_one_completes_it(hub, store, tmp_path):
    hub.seed("org/model", FILES)
    fault = hub.fail("LFS org/model/model-1.safetensors", stall=1000)
    words = [sys.executable, "-c", ANOTHER, hub.url, tmp_path]
    process = subprocess.Popen(words)
    assert fault.hit.wait(30)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert content(store()("hf://org/model", timeout=60)[0].path) == FILES


def test_a_listing_of_several_pages_is_read_to_its_end(hub, store):
    hub.page = 2
    hub.seed("org/model", FILES)
    assert content(store()("hf://org/model")[0].path) == FILES


def test_patterns_that_match_nothing_name_the_files(hub, store):
    hub.seed("org/model", FILES)
    with pytest.raises(LaunchError, match=r"none of its 5 files is wanted \(\*.gguf\).*config.json"):
        store()({"hf": "org/model", "include": "*.gguf"})


def test_a_name_in_a_listing_cannot_leave_the_snapshot(hub, store, tmp_path):
    hub.seed("org/model", {"config.json": b"{}", "../../../../evil": b"x"})
    with contextlib.suppress(LaunchError):
        store()("hf://org/model")
    assert not list(tmp_path.rglob("evil"))


def test_without_huggingface_hub_the_error_says_how_to_install_it(hub, store, tmp_path, monkeypatch):
    hub.seed("org/model", FILES)
    (tmp_path / "broken/huggingface_hub").mkdir(parents=True)
    (tmp_path / "broken/huggingface_hub/__init__.py").write_text("raise ImportError('not here')\n")
    monkeypatch.syspath_prepend(tmp_path / "broken")
    with pytest.raises(LaunchError, match=r"cannot be imported.*pip install 'huggingface_hub>=0.26'"):
        store()("hf://org/model")


@pytest.mark.parametrize("name", ["LFS org/model/model-1.safetensors", "tree *"])
def test_a_file_that_the_hub_knows_and_does_not_send_is_not_called_an_unknown_revision(hub, store, name):
    hub.seed("org/model", FILES)
    hub.fail(name, status=404, times=None)
    with pytest.raises(TemporaryError, match=r"has 'main' of it, and does not show its files \(HTTP 401 or 404\)"):
        store()("hf://org/model")
