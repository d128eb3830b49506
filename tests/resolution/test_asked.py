"""Parts of a command that change the answer, and parts that may differ between nodes: real launchers, one a node."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from nemotron_exec.command.read import read
from nemotron_exec.config.files import Rendered
from nemotron_exec.options import Options
from nemotron_exec.rendezvous.question import Question
from nemotron_exec.resolution.asked import ask
from nemotron_exec.resolution.words import apply_changes, portable_changes

CONFIG = """\
run:
  data: blend:latest
dataset:
  path: ${art:data,path}
  label: ${data.name}-${art:data,version}
data: {name: x}
log: {dir: /tmp}
"""


@pytest.fixture
def asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cfg.yaml").write_text(CONFIG)

    def asked(command: str, **chosen) -> Question:
        return ask(read(command.split()), Options(**chosen))

    return asked


THE_SAME = {
    "a word that is no override": "python train.py cfg.yaml --id node1",
    "an override of a key that nothing reads": "python train.py cfg.yaml log.dir=/scratch/node1",
    "an absolute path": "python train.py {cwd}/cfg.yaml",
    "another script": "python serve.py cfg.yaml",
    "torchrun's own words": "torchrun --node-rank 1 --nnodes 2 train.py cfg.yaml",
    "more words": "python train.py --head --port 7 cfg.yaml",
}


@pytest.mark.parametrize("command", THE_SAME.values(), ids=THE_SAME)
def test_words_that_do_not_bear_on_the_answer_make_no_other_question(asked, tmp_path, command):
    assert asked(command.format(cwd=tmp_path)).key == asked("python train.py cfg.yaml").key


ANOTHER = {
    "another version": ("python train.py cfg.yaml run.data=blend:v1", {}),
    "another store": ("python train.py cfg.yaml", {"store": "/other"}),
    "another mode": ("python train.py cfg.yaml", {"resolve": "all"}),
    "another artifact": ("python train.py cfg.yaml", {"artifact": ("data=blend:v1",)}),
    "another list of artifacts": ("python train.py cfg.yaml", {"artifacts": "other.yaml"}),
    "another profile": ("python train.py cfg.yaml", {"run": "team"}),
    "an expression of its own": ("python train.py cfg.yaml x=${{art:data,path}}", {}),
    "a key at which an expression stands": ("python train.py cfg.yaml dataset.path=/x", {}),
    "a key that an expression reads": ("python train.py cfg.yaml data.name=y", {}),
    "another config": ("python train.py other.yaml", {}),
}


@pytest.mark.parametrize(("command", "chosen"), ANOTHER.values(), ids=ANOTHER)
def test_what_bears_on_the_answer_makes_another_question(asked, tmp_path, command, chosen):
    (tmp_path / "other.yaml").write_text(CONFIG + "# changed\n")

    assert asked(command.format(), **chosen).key != asked("python train.py cfg.yaml").key


def test_the_value_of_a_key_that_an_expression_reads_is_the_nodes_own(asked):
    # The resolved file keeps the expression, and each node's command gives the value.
    one, two = (asked(f"python train.py cfg.yaml data.name={name}") for name in "ab")

    assert one.key == two.key


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("python train.py cfg.yaml", "python serve.py cfg.yaml"),
        ("python train.py cfg.yaml", "python train.py other.yaml"),
        ("python -m a cfg.yaml", "python -m b cfg.yaml"),
    ],
)
def test_another_script_or_config_is_another_program(asked, tmp_path, one, two):
    (tmp_path / "other.yaml").write_text(CONFIG)

    assert asked(one).program != asked(two).program
    assert asked(one).program == asked(one + " run.data=blend:v1 --id 7").program


def test_an_answer_is_applied_to_other_words_than_the_leaders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cfg.yaml").write_text(CONFIG)
    leader = read(["torchrun", "train.py", "--config=cfg.yaml", "run.data=blend:v1", "x=${art:data,path}"])
    other = read(["python", "train.py", "--id", "7", f"{tmp_path}/cfg.yaml", "x=${art:data,path}", "run.data=blend:v1"])

    rendered = Rendered(
        (), (), {2: "--config=/state/cfg.yaml", 4: "x=/data"}, frozenset({3}), ((leader.configs[0], "/state/cfg.yaml"),)
    )

    changes = portable_changes(leader, rendered)
    arguments, dropped = apply_changes(other, json.loads(json.dumps(changes)))

    assert arguments == {3: "/state/cfg.yaml", 4: "x=/data"}
    assert dropped == {5}


# -- real launchers ---------------------------------------------------------------------------------------------------


@pytest.fixture
def nodes(tmp_path):
    """Start the launcher of node `index` of two: `nodes(index, *words)`. The command prints its words and config."""
    for version in ("v1", "v2"):
        made = tmp_path / "store" / "blend" / version
        made.mkdir(parents=True)
        (tmp_path / version).mkdir()
        fields = {"path": str(tmp_path / version), "type": "dataset", "iteration": None, "metadata": {}}
        manifest = {**fields, "name": "blend", "version": int(version[1:]), "created_at": "", "producer": ""}
        (made / "manifest.json").write_text(json.dumps({**manifest, "inputs": [], "used_artifacts": []}))
        (made / "metadata.json").write_text(json.dumps(fields))
    (tmp_path / "store" / "blend" / "latest").write_text("v2")
    (tmp_path / "cfg.yaml").write_text(CONFIG)
    program = "import sys; [print(open(w).read() if w.endswith('cfg.yaml') else w) for w in sys.argv[1:]]"
    (tmp_path / "train.py").write_text(program)
    started = []

    def start(index: int, *words: str, config: str = "cfg.yaml", **environ: str) -> subprocess.Popen[str]:
        place = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_PROCID": str(index), "SLURM_NTASKS": "2"}
        place |= {"SLURM_NODEID": str(index), "SLURM_NNODES": "2", "SLURM_NTASKS_PER_NODE": "1"}
        where = ["--state-dir", str(tmp_path / "state"), "--store", str(tmp_path / "store"), "--backend", "manifest"]
        process = subprocess.Popen(
            [sys.executable, "-m", "nemotron_exec", *where, sys.executable, "train.py", config, *words],
            cwd=tmp_path,
            env={**os.environ, **place, **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_nodes_whose_words_differ_where_it_does_not_matter_get_one_answer(nodes, tmp_path):
    one = nodes(0, "--id", "node0", "log.dir=/scratch/node0", "run.data=blend:v1")
    two = nodes(1, "run.data=blend:v1", "--id", "node1", "log.dir=/scratch/node1", config=f"{tmp_path}/cfg.yaml")
    (out, err), (other, _) = one.communicate(timeout=200), two.communicate(timeout=200)

    assert (one.returncode, two.returncode) == (0, 0), err
    assert f"path: {tmp_path}/v1" in out
    assert f"path: {tmp_path}/v1" in other
    assert out.splitlines()[-3:] == ["--id", "node0", "log.dir=/scratch/node0"]
    assert other.splitlines()[-3:] == ["--id", "node1", "log.dir=/scratch/node1"]


def test_nodes_that_ask_for_other_versions_all_stop(nodes):
    processes = [nodes(index, f"run.data=blend:v{index + 1}") for index in range(2)]
    said = [process.communicate(timeout=200)[1] for process in processes]

    assert [process.returncode for process in processes] == [125, 125], said
    assert all("run.data is blend:v" in text for text in said)


def test_a_launcher_that_is_started_again_after_a_comment_keeps_the_version(nodes, tmp_path):
    first = [nodes(index) for index in range(2)]
    assert all(f"path: {tmp_path}/v2" in process.communicate(timeout=200)[0] for process in first)
    (tmp_path / "store" / "blend" / "latest").write_text("v1")
    (tmp_path / "cfg.yaml").write_text(CONFIG + "# a comment\n")
    out, err = nodes(1).communicate(timeout=200)

    assert f"path: {tmp_path}/v2" in out, err
    assert "blend:latest is v2 (--refresh asks again)" in err


def test_a_requeued_step_of_another_number_keeps_the_version(nodes, tmp_path):
    for process in [nodes(index) for index in range(2)]:
        assert f"path: {tmp_path}/v2" in process.communicate(timeout=200)[0]
    (tmp_path / "store" / "blend" / "latest").write_text("v1")
    again = [nodes(index, SLURM_STEP_ID="1", SLURM_RESTART_COUNT="1") for index in range(2)]

    for process in again:
        out, err = process.communicate(timeout=200)
        assert f"path: {tmp_path}/v2" in out, err
