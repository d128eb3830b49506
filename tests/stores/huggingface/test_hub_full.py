"""A cache on a full disk: before or during the download, without bytes or without inodes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from nemotron_exec.stores.huggingface.faults import is_full

FILES = {
    "config.json": b"{}",
    "model-1.safetensors": bytes(range(256)) * 6000,
    "model-2.safetensors": b"\1" * 300_000,
}
CONFIG = "run: {model: 'hf://org/model'}\npath: ${art:model,path}\n"
# Another program takes the room as soon as bytes arrive.
FILL = "(until ls hf/hub/*/blobs/*.incomplete; do sleep 0.02; done; head -c 9m /dev/zero > hf/other) >/dev/null 2>&1 &"


@pytest.fixture
def launch(hub, tmp_path):
    """Start the launcher with a cache of a few megabytes, and print the cache's files at the end."""
    (tmp_path / "cfg.yaml").write_text(CONFIG)
    (tmp_path / "hf").mkdir()

    def run(mount, before="", after="find hf -type f -size +9k; ls hf/hub/*/snapshots/*", **environ):
        launcher = f"{sys.executable} -m nemotron_exec touch started cfg.yaml"
        script = f"mount -t tmpfs -o {mount} none hf && {{ {before}\n{launcher}; code=$?; {after}; exit $code; }}"
        return subprocess.run(
            ["unshare", "--mount", "--map-root-user", "sh", "-c", script], cwd=tmp_path,
            env={**os.environ, **hub.environ(tmp_path / "hf"), "NEMOTRON_EXEC_STATE_DIR": str(tmp_path / "state"),
                 **environ},
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    return run


@pytest.fixture
def said(tmp_path):
    """Check that a start has failed for lack of room with one message; returns it."""

    def check(done, *texts):
        assert done.returncode == 75, done.stderr
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "started").exists()
        for text in (*texts, "Free some space, or give a roomier directory"):
            assert text in done.stderr, done.stderr

    return check


def test_a_disk_that_is_too_small_is_known_before_the_download(hub, launch, said):
    hub.seed("org/model", FILES)
    said(launch("size=1m"), "1.8 MB are needed in ", "1.0 MB are available there")
    assert hub.operations("(HEAD|GET|LFS) .*") == 0


@pytest.mark.parametrize("xet", [False, True])
def test_a_disk_that_fills_in_the_middle_keeps_no_half_file(hub, launch, said, xet):
    hub.seed("org/model", FILES, xet=xet)
    hub.bandwidth = 500_000
    done = launch("size=3m", FILL, **({"HF_HUB_DISABLE_XET": "0"} if xet else {}))
    said(done, "has no room left: ", " are needed, and ", "B are available")
    assert hub.operations("xet-token .*") == xet
    left = [line for line in done.stdout.splitlines() if "other" not in line and "incomplete" not in line]
    assert not [line for line in left if "blobs" in line or "model-1" in line], done.stdout


def test_a_disk_without_inodes_says_so(hub, launch, said):
    hub.seed("org/model", {**FILES, **{f"more/{number}.json": b"{}" for number in range(40)}})
    said(launch("size=9m,nr_inodes=40"), "refuses to store more (a quota, or no inodes)")


def test_what_fits_after_somebody_has_tidied_up_is_completed(hub, launch, tmp_path):
    hub.seed("org/model", FILES)
    hub.bandwidth = 500_000
    again = (
        f"rm hf/other; {sys.executable} -m nemotron_exec touch started cfg.yaml; code=$?; ls -L hf/hub/*/snapshots/*"
    )
    done = launch("size=3m", FILL, again)
    assert done.returncode == 0, done.stderr
    assert set(FILES) <= set(done.stdout.split())
    assert (tmp_path / "started").exists()


def test_a_full_disk_is_known_by_what_rust_says():
    assert is_full(RuntimeError("Data processing error: File I/O error: No space left on device (os error 28)"))
    assert is_full(RuntimeError("Disk quota exceeded (os error 122)"))
    assert not is_full(RuntimeError("Connection reset by peer (os error 104)"))
