"""Questions of the launchers of one job: the same question in another step or in other words, or a different one."""

from __future__ import annotations

import shutil

import pytest
from cluster import HERE
from work import answers, versions

pytestmark = pytest.mark.ci

NODES = ("--nodes=2", "--ntasks-per-node=1")
# The time-out is far longer than any of these tests: a launcher that waits in vain fails by the test's own bound.
LAUNCH = "nemotron-exec --timeout 500"


@pytest.fixture
def server(work):
    """The words of a second program with its own config, such as a generation server beside a trainer."""
    shutil.copy(HERE / "train.py", work.path / "serve.py")
    shutil.copy(work.config, work.path / "serve.yaml")
    return f"{work.path}/serve.py {work.path}/serve.yaml"


# -- another step, the same job -------------------------------------------------------------------------------------


def test_a_requeued_job_whose_step_has_another_number_keeps_its_versions(slurm, submit, work):
    job = submit(
        f"[ -e {work.path}/prepared ] || {{ srun true; touch {work.path}/prepared; }}\n"
        f"srun bash -c 'echo $SLURM_STEP_ID >>{work.path}/steps; exec {LAUNCH} $PYTHON $TRAIN hold={work.path}/go'\n",
        *NODES,
    )
    slurm.until(lambda: len(work.seen(0)) == 2, 60, "both train")
    work.publish(2)
    job.requeue()
    slurm.until(lambda: len(work.seen(1)) == 2, 60, "both train again")
    (work.path / "go").touch()
    assert job.end() == ("COMPLETED", "0:0"), job.output()
    assert (work.path / "steps").read_text().split() == ["1", "1", "0", "0"]
    assert versions(work.seen()) == ["v1"] * 4


def test_a_retry_in_the_same_script_keeps_its_versions(slurm, submit, work):
    run = f"srun {LAUNCH} $PYTHON $TRAIN"
    job = submit(
        f"{run} exit=1 || {{ touch {work.path}/failed; until [ -e {work.path}/go ]; do sleep 0.05; done; {run}; }}\n",
        *NODES,
    )
    slurm.until((work.path / "failed").exists, 60, "the first try has failed")
    work.publish(2)
    (work.path / "go").touch()
    assert job.end() == ("COMPLETED", "0:0"), job.output()
    assert versions(work.seen()) == ["v1"] * 4


# -- another program, the same step ---------------------------------------------------------------------------------


def test_two_programs_of_one_step_both_start_though_each_is_alone_on_its_node(submit, work, server):
    (work.path / "programs").write_text(
        f"0 {LAUNCH} {work.environ['PYTHON']} {work.environ['TRAIN']}\n1 {LAUNCH} {work.environ['PYTHON']} {server}\n"
    )
    job = submit(f"srun --multi-prog {work.path}/programs\n", *NODES)
    assert job.end(seconds=50) == ("COMPLETED", "0:0"), job.output()
    seen = work.seen()
    assert [one["rank"] for one in seen] == [0, 1]
    assert len({one["host"] for one in seen}) == len(answers(seen)) == 2
    assert versions(seen) == ["v1", "v1"]
    assert "not shared" not in job.output()


def test_two_programs_of_a_heterogeneous_step_both_start(submit, work, server):
    job = submit(
        "#SBATCH --nodes=2 --ntasks-per-node=1\n#SBATCH hetjob\n#SBATCH --nodes=1 --ntasks=1\n"
        f"srun --het-group=0 {LAUNCH} $PYTHON $TRAIN : --het-group=1 {LAUNCH} $PYTHON {server}\n"
    )
    assert job.end(seconds=50) == ("COMPLETED", "0:0"), job.output()
    seen = work.seen()
    assert len(seen) == len({one["host"] for one in seen}) == 3
    assert len(answers(seen)) == 2
    assert versions(seen) == ["v1"] * 3
    assert "not shared" not in job.output()


def test_two_programs_of_one_mpirun_both_start(submit, work, server):
    mpirun = "mpirun.openmpi --allow-run-as-root"
    job = submit(f"{mpirun} -n 1 {LAUNCH} $PYTHON $TRAIN : -n 3 {LAUNCH} $PYTHON {server}\n", "--nodes=2", "--ntasks=4")
    assert job.end(seconds=50) == ("COMPLETED", "0:0"), job.output()
    seen = work.seen()
    assert [one["rank"] for one in seen] == [0, 1, 2, 3]
    assert len(answers(seen)) == 2
    assert "not shared" not in job.output()


# -- another word, the same question --------------------------------------------------------------------------------

WORDS = {
    "a directory of the node's own": "$PYTHON $TRAIN log.dir=/scratch/$(hostname)",
    "an option of the script": "$PYTHON $TRAIN --id node$SLURM_NODEID",
    "an absolute path and a relative one": "$PYTHON ${TRAIN% *} $([ $SLURM_NODEID = 0 ] && pwd | sed s,$,/,)cfg.yaml",
}


@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)
def test_a_word_that_differs_by_node_makes_no_other_question(submit, work, words):
    job = submit(f"srun bash -c 'exec {LAUNCH} {words}'\n", "--nodes=3", "--ntasks-per-node=1")
    assert job.end(seconds=50) == ("COMPLETED", "0:0"), job.output()
    seen = work.seen()
    assert [one["rank"] for one in seen] == [0, 1, 2]
    assert len(answers(seen)) == 1
    assert [one["arguments"] for one in seen] != [seen[0]["arguments"]] * 3 or "cfg.yaml" in words


DIFFERENT = {
    "a version": ("", "run.data=blend:v$((1 + (SLURM_NODEID > 0)))", "run.data is"),
    "a config": ("sed s/latest/v$((1 + (SLURM_NODEID > 0)))/ cfg.yaml >/tmp/cfg.yaml; cd /tmp; ", "", "cfg.yaml is"),
    "a store": ("export NEMOTRON_EXEC_STORE=$PWD/store$((SLURM_NODEID > 0)); ", "", "store"),
}


@pytest.mark.parametrize(("before", "word", "said"), DIFFERENT.values(), ids=DIFFERENT)
def test_questions_that_really_differ_stop_all_nodes_at_once(submit, work, before, word, said):
    work.publish(2)
    for name in ("store0", "store1"):
        shutil.copytree(work.path / "store", work.path / name)
    job = submit(
        f"srun bash -c '{before}exec {LAUNCH} $PYTHON ${{TRAIN% *}} cfg.yaml {word}'\n",
        *("--nodes=3", "--ntasks-per-node=1"),
    )
    assert job.end(seconds=50) == ("FAILED", "125:0"), job.output()
    assert work.seen() == []
    errors = [line for line in job.output().splitlines() if "nemotron-exec: error" in line]
    assert len(errors) == 3, job.output()
    assert all(said in line for line in errors), job.output()
    assert "not shared" not in job.output()
