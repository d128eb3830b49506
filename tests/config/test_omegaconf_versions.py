"""The tests of the config, again under the newest OmegaConf 2.4, a pre-release where there is one.

hydra-core does not admit 2.4 yet (it asks for < 2.4), so the environment that runs this has 2.3. As in
test_wandb_versions.py, only OmegaConf is installed again, in an environment that falls back on this one.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONFIG_TESTS = (
    "test_bad_input.py config document interpolation command/test_hydra_programs.py payload/test_python_api.py"
)


def environment() -> Path:
    """The interpreter of an environment with that OmegaConf; made once, kept in build/."""
    home = ROOT / "build" / "omegaconf-2.4"
    python = home / "bin" / "python"
    ready = home / f"ready-{sys.version_info.minor}"
    if not ready.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True, timeout=300)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        # OmegaConf alone, or --pre would take the pre-releases of what it needs as well.
        subprocess.run([*pip, "--pre", "--no-deps", "omegaconf>=2.4.0,<2.5"], check=True, timeout=600)
        # Everything else, pytest and nemotron-exec itself included, is that of the environment that runs this.
        (here,) = home.glob("lib/python*/site-packages")
        (here / "outer.pth").write_text(f"import site; site.addsitedir({sysconfig.get_paths()['purelib']!r})\n")
        ready.touch()
    return python


@pytest.mark.ci
@pytest.mark.timeout(1800)
def test_a_config_means_the_same_under_the_newest_omegaconf(tmp_path: Path) -> None:
    python = environment()
    shown = subprocess.run(
        [python, "-W", "ignore", "-c", "import omegaconf, nemotron_exec; print(omegaconf.__version__)"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout.strip()
    assert shown.startswith("2.4."), shown
    done = subprocess.run(
        [
            *(python, "-m", "pytest", "-m", "not ci", "-n", "2", "-q", "-p", "no:cacheprovider"),
            f"--basetemp={tmp_path}/tests",
            *(f"tests/{name}" for name in CONFIG_TESTS.split()),
        ],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert done.returncode == 0, f"OmegaConf {shown}\n{done.stdout[-20000:]}\n{done.stderr[-2000:]}"
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed.group(1)) >= 400
