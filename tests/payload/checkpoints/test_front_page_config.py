"""The config of README's front page, examples/sft.yaml, run by Megatron-Bridge's own pretrain() and finetune().

It runs in CI only, because a framework's whole environment has gigabytes (framework_environments.py).
"""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from framework_environments import python_of
from nemotron_exec.sitecustomize.payload.manifest import listing, read, register
from places import ROOT

pytestmark = [pytest.mark.ci, pytest.mark.timeout(1500)]

SCRIPT = ROOT / "tests" / "frameworks" / "train_by_config.py"
LOADED = re.compile(r"loading distributed checkpoint from (\S+) at iteration (\d+)")


@pytest.mark.parametrize("environment", ["pretrain", "pretrain-0.6"])
def test_the_pinned_iteration_is_loaded_and_not_the_newest_and_a_requeue_resumes_its_own(tmp_path, environment):
    store = str(tmp_path / "store")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "blend.json").write_text('{"train": []}')
    data = {"pack_size": 128}
    register.register(store, "demo-blend", type="dataset", path=str(tmp_path / "data"), metadata=data)

    def train(job, config, *words):
        (tmp_path / job).mkdir(exist_ok=True)
        command = [python_of(environment), str(SCRIPT), str(ROOT / "examples" / config), *words]
        environ = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(tmp_path),
            "TMPDIR": str(tmp_path),
            "OMP_NUM_THREADS": "1",
            "PYTHONWARNINGS": "ignore",
            "NEMO_RUN_DIR": str(tmp_path / job),
            "NEMOTRON_EXEC_STORE": store,
            "NEMOTRON_EXEC_JOB_ID": job,
        }
        launcher = [sys.executable, "-m", "nemotron_exec", "--"]
        done = subprocess.run(
            [*launcher, *command], env=environ, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600
        )
        assert done.returncode == 0, done.stderr[-4000:]
        assert "nemotron-exec: warning" not in done.stderr
        return LOADED.findall(done.stdout + done.stderr)

    assert train("one", "pretrain.yaml") == []
    saved = [read.read_version(store, "pretrain", number).manifest for number in listing.versions(store, "pretrain")]
    assert [one["metadata"]["iteration"] for one in saved] == [10, 20]
    # The save directory's newest iteration is 20, but iteration 10 is pinned.
    ((path, iteration),) = train("two", "sft.yaml", "run.model=pretrain:v1")
    assert iteration == "10"
    assert path.endswith("/pretrained/model/pretrain")
    ((path, iteration),) = train("two", "sft.yaml", "run.model=pretrain:v1")
    assert (path, iteration) == (str(tmp_path / "two" / "sft"), "10")
    found = read.read_version(store, "sft", 1).manifest
    assert sorted(found["used_artifacts"]) == ["demo-blend:v1", "pretrain:v1"]
