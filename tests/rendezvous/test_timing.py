"""The only constant of the protocol that a cluster can change."""

from __future__ import annotations

import pytest

from nemotron_exec.errors import UsageError
from nemotron_exec.rendezvous.timing import Timing


@pytest.mark.parametrize(("written", "expected"), [(None, 2.0), ("", 2.0), ("0", 0.0), ("7.5", 7.5)])
def test_the_head_start_of_launcher_0_is_read_from_the_environment(written, expected):
    environ = {} if written is None else {"NEMOTRON_EXEC_HEAD_START": written}

    assert Timing.of(environ).head_start == expected


@pytest.mark.parametrize("written", ["two", "-1", "nan", "inf", "3600"])
def test_a_head_start_that_is_no_number_of_seconds_is_an_error(written):
    with pytest.raises(UsageError, match="NEMOTRON_EXEC_HEAD_START"):
        Timing.of({"NEMOTRON_EXEC_HEAD_START": written})


def test_the_launcher_leaves_launcher_0_the_head_start_that_the_environment_names(nemotron_exec, tmp_path):
    """Launcher 1 of 2 finds another node there, and launcher 0 does not come: only then does the head start end."""
    (tmp_path / "cfg.yaml").write_text("run: {data: 'blend:latest'}\npath: ${art:data,path}\n")
    place = {"NEMOTRON_EXEC_HEAD_START": "bad", "SLURM_JOB_ID": "7", "SLURM_PROCID": "1", "SLURM_NTASKS": "2"}

    done = nemotron_exec("--state-dir", tmp_path / "state", "cat", "cfg.yaml", env=place)

    assert done.returncode == 2
    assert "NEMOTRON_EXEC_HEAD_START" in done.stderr
