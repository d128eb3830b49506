"""Finds the function that the Megatron-Bridge patch wraps in wheels that a small CI cannot import. In CI only."""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile

import pytest

from nemotron_exec.sitecustomize.payload.patches import megatron_bridge as patch

pytestmark = pytest.mark.ci


@pytest.mark.parametrize("version", ["0.3.1", "0.4.2", "0.5.1", "0.6.2"])
def test_the_wheel_has_the_function_with_the_parameters_that_the_patch_knows(version, tmp_path):
    # 0.4 and later need Python 3.12 and a CUDA build of PyTorch, so the wheels are read and not run.
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary=:all:",
            "--dest",
            str(tmp_path),
        ]
        + ["--python-version", "3.12", f"megatron-bridge=={version}"],
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    tree = ast.parse(zipfile.ZipFile(wheel).read(patch.MODULE.replace(".", "/") + ".py"))
    (function,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == patch.FUNCTION]
    assert tuple(argument.arg for argument in function.args.args) == patch.PARAMETERS
