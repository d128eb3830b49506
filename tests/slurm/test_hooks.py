"""`run.on_checkpoint` under a real Slurm: an evaluation in a job of its own, from a hook of a step."""

from __future__ import annotations

import json
import re

import pytest

from places import ROOT

pytestmark = pytest.mark.ci

TRAIN = """
import os
from nemotron_exec import record_checkpoint
os.makedirs("ckpt/step_10", exist_ok=True)
if record_checkpoint("ckpt/step_10"):
    print("recorded", flush=True)
"""


def test_each_checkpoint_is_evaluated_in_a_job_of_its_own_that_stands_in_the_lineage(slurm, submit, work):
    page = (ROOT / "docs/hooks.md").read_text()
    script = page[page.index("#!/bin/bash") :].partition("```")[0]
    (work.path / "eval.sbatch").write_text(script)
    (work.path / "evaluate.py").write_text(
        "import json, os, sys; os.makedirs(sys.argv[3]); json.dump(dict(os.environ), open('seen.json', 'w'))"
    )
    (work.path / "save.py").write_text(TRAIN)
    command = re.search(r"command: (sbatch [^,]*eval\.sbatch)", page)[1]
    # The hook's command gets the cluster's configuration by a variable: it is not in the usual place.
    hook = {"command": command, "name": "evaluate", "when": "periodic"}
    work.config.write_text(json.dumps({"run": {"on_checkpoint": hook}}))
    job = submit(f"srun nemotron-exec $PYTHON save.py {work.config}\n", "--nodes=2", "--ntasks-per-node=1")
    assert job.end() == ("COMPLETED", "0:0"), job.output()
    seen = slurm.until(lambda: (work.path / "seen.json").exists() and (work.path / "seen.json").read_text(), 60, "eval")
    slurm.until(lambda: (work.path / "store/ckpt-eval/latest").exists(), 60, "the result in the store")
    manifest = json.loads((work.path / "store/ckpt-eval/v1/manifest.json").read_text())
    assert manifest["used_artifacts"] == ["ckpt:v1"]
    environment = json.loads(seen)
    assert environment["SLURM_JOB_ID"] not in ("", str(job.number))
    assert not [name for name in environment if name.startswith("NEMOTRON_EXEC_")]
    assert environment["NEMOTRON_CHECKPOINT_ITERATION"] == "10"
