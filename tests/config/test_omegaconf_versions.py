"""Runs the tests of the config again under the newest OmegaConf 2.4, also a pre-release.

hydra-core still requires OmegaConf < 2.4, so this environment has 2.3.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import other_versions

CONFIG_TESTS = (
    "test_bad_input.py config document interpolation command/test_hydra_programs.py payload/test_python_api.py"
)


@pytest.mark.ci
@pytest.mark.timeout(1800)
def test_a_config_means_the_same_under_the_newest_omegaconf(tmp_path: Path) -> None:
    # Install OmegaConf without requirements: --pre would take their pre-releases, too.
    python = other_versions.environment("omegaconf-2.4", "--pre", "--no-deps", "omegaconf>=2.4.0,<2.5")
    assert other_versions.version_of(python, "omegaconf").startswith("2.4.")
    tests = [f"tests/{name}" for name in CONFIG_TESTS.split()]
    assert other_versions.passed_again(python, "not ci", *tests, basetemp=tmp_path / "tests", timeout=1500) >= 400
