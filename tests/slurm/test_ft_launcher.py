"""ft_launcher, which assigns the ranks itself and restarts workers inside the job."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
from cluster import HERE, ROOT
from filelock import FileLock
from work import answers, versions

pytestmark = pytest.mark.ci

NVRX = "nvidia-resiliency-ext==0.7.0"
# The requirements that the launcher itself imports. The others are for its services.
NEEDED = ("defusedxml==0.7.1", "grpcio==1.85.3", "nvidia-ml-py==13.615.71", "setproctitle==1.3.8")


@pytest.fixture(scope="session")
def nvrx():
    """A directory with the package and its ft_launcher, made once.

    The wheel's tags name one Python and a newer libc, because of a module that counts GPU kernels. The launcher itself
    is pure Python.
    """
    home = ROOT / "build" / NVRX.replace("==", "-")
    home.parent.mkdir(exist_ok=True)
    with FileLock(f"{home}.lock"):
        if not (home / "ready").exists():
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade", f"--target={home}"]
            tags = ["--python-version=3.12", "--platform=manylinux_2_39_x86_64", "--only-binary=:all:"]
            subprocess.run([*pip, *tags, NVRX], check=True, timeout=300)
            subprocess.run([*pip, *NEEDED], check=True, timeout=300)
            (home / "ready").touch()
    return home


def test_the_example_restarts_workers_inside_the_job_with_the_same_versions(slurm, submit, work, nvrx):
    """The example runs on four nodes, without its two spares, and with one worker on each."""
    shutil.copy(HERE / "train.py", work.path)
    (work.path / "ft.yaml").write_text("fault_tolerance: {log_level: INFO}\n")
    environ = {
        "PATH": os.pathsep.join(map(str, (HERE / "bin", nvrx / "bin", slurm.environ()["PATH"]))),
        "PYTHONPATH": str(nvrx),
        "TEAM": str(work.path),
        "IMAGE": "image",
    }
    example = ROOT / "examples" / "ft_launcher" / "job.sbatch"
    words = (f"hold={work.path}/go", f"fail={work.path}/failed")
    job = submit.file(example, "--nodes=4", "--gpus-per-node=1", env=environ, words=words)
    slurm.until(lambda: len(work.seen()) == 4, 120, "all train")
    work.publish(2)
    (work.path / "go").touch()
    assert job.end(seconds=180) == ("COMPLETED", "0:0"), job.output()[-3000:]
    seen = work.seen()
    assert len(seen) == 8  # four of them after the restart
    assert len({one["host"] for one in seen}) == 4
    assert len(answers(seen)) == 1
    assert versions(seen) == ["v1"] * 8
