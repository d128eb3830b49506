"""A disk without room at any moment gives exit code 75 and one line with the needed and the available room."""

from __future__ import annotations

import errno
import json
import re
import shlex
import sys

import pytest

from mounts import run_with_mounts
from nemotron_exec.sitecustomize.payload import disk

LAUNCHER = shlex.join([sys.executable, "-m", "nemotron_exec"])
ARTIFACT = shlex.join([sys.executable, "-m", "nemotron_exec.artifact_cli"])


@pytest.fixture
def small(tmp_path):
    """`small(script, options)`: run a script beside a config, in a mount namespace where `$D` is a tiny tmpfs."""
    version = tmp_path / "store/blend/v1"
    version.mkdir(parents=True)
    version.joinpath("manifest.json").write_text(json.dumps({"name": "blend", "version": 1, "path": str(tmp_path)}))
    (tmp_path / "cfg.yaml").write_text("run: {data: 'blend:v1'}\npath: ${art:data,path}\n")
    (tmp_path / "small").mkdir()

    def run(script, options="size=64k"):
        mount = f'mount -t tmpfs -o {options},mode=1777 none "$D" || exit 99; '
        script = mount + script.replace("$N", LAUNCHER).replace("$A", ARTIFACT)
        return run_with_mounts(script, tmp_path, NEMO_ARTIFACT_ROOT=str(tmp_path / "store"), D=str(tmp_path / "small"))

    return run


FILL = 'head -c %dk /dev/zero >"$D/fill"; '


def is_one_line_about_room(done):
    return (
        done.returncode == 75
        and len(done.stderr.splitlines()) == 1
        and re.search(r"no space left on device: .*\d+ bytes( and \d+ inodes)? available", done.stderr)
    )


@pytest.mark.ci
@pytest.mark.parametrize("filled", [48, 50, 54, 58, 64])
def test_a_state_directory_that_is_full_at_any_file(small, filled):
    done = small(FILL % filled + '$N --state-dir "$D" cat cfg.yaml')
    assert is_one_line_about_room(done), done.stderr


@pytest.mark.ci
def test_a_state_directory_without_inodes_says_so(small):
    done = small('$N --state-dir "$D" cat cfg.yaml', "size=1m,nr_inodes=6")
    assert is_one_line_about_room(done), done.stderr
    assert " 0 inodes available" in done.stderr


@pytest.mark.ci
@pytest.mark.parametrize("filled", [52, 64])
def test_a_store_that_is_full(small, filled):
    done = small(FILL % filled + '$A --store "$D/store" add x .')
    assert is_one_line_about_room(done), done.stderr
    assert re.search(r"\d+ bytes are needed", done.stderr)


@pytest.mark.ci
@pytest.mark.parametrize("command", ["$N --dry-run cat cfg.yaml", "$N --doctor cat cfg.yaml", "$A ls"])
def test_an_output_that_is_full(small, command):
    done = small(f"{command} >/dev/full")
    assert (done.returncode, done.stderr.count("no space left")) == (75, 1), done.stderr


def test_another_error_keeps_its_words():
    error = OSError(errno.EIO, "Input/output error")
    assert disk.no_room(error, "/tmp", 10) == "input/output error"
