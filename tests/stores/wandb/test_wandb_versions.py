"""The tests marked `wandb_matrix`, again under the oldest wandb that is supported, Megatron-Bridge's, and the newest.

Each version has an environment of its own that falls back on the one that runs this: only wandb and what it needs are
installed again.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
VERSIONS = {"oldest": "wandb==0.22.0", "megatron-bridge": "wandb==0.27.2", "newest": "wandb"}


def environment(name: str, requirement: str) -> Path:
    """The interpreter of an environment with that wandb; made once, kept in build/."""
    home = ROOT / "build" / f"wandb-{name}"
    python = home / "bin" / "python"
    ready = home / f"ready-{sys.version_info.minor}"
    if not ready.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True, timeout=300)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--upgrade", requirement], check=True, timeout=600)
        # Everything else, pytest and nemotron-exec itself included, is that of the environment that runs this.
        (here,) = home.glob("lib/python*/site-packages")
        (here / "outer.pth").write_text(f"import site; site.addsitedir({sysconfig.get_paths()['purelib']!r})\n")
        ready.touch()
    return python


@pytest.mark.ci
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", VERSIONS)
def test_lineage_checkpoints_and_resolution_work_with(name: str, tmp_path: Path) -> None:
    python = environment(name, VERSIONS[name])
    shown = subprocess.run(
        [python, "-W", "ignore", "-c", "import wandb, nemotron_exec; print(wandb.__version__)"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout.strip()
    if "==" in VERSIONS[name]:
        assert shown == VERSIONS[name].partition("==")[2]
    done = subprocess.run(
        [
            *(python, "-m", "pytest", "-m", "wandb_matrix", "-n", "2", "-q", "-p", "no:cacheprovider"),
            f"--basetemp={tmp_path}/tests",
            *([] if os.environ.get("CI") else ["--tb=short"]),
        ],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
        capture_output=True,
        text=True,
        timeout=1000,
        check=False,
    )
    assert done.returncode == 0, f"wandb {shown}\n{done.stdout[-20000:]}\n{done.stderr[-2000:]}"
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed.group(1)) >= 5
