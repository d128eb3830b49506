"""A command that probably does something else than intended starts with one warning, with the right spelling."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys

import pytest

from nemotron_exec.command.read import read
from nemotron_exec.command_scan import may_need_resolving
from nemotron_exec.config.config import read as read_configs
from nemotron_exec.config.hydra import without_silent
from nemotron_exec.config.run_section import Injected
from nemotron_exec.errors import LaunchError
from nemotron_exec.options import Options
from nemotron_exec.resolution.doubts import doubts
from nemotron_exec.sitecustomize.payload.manifest.register import register


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cfg.yaml").write_text("run: {data: 'blend:v1'}\npath: ${art:data,path}\n")
    for name in ("plain.yaml", "a,cfg.yaml", "my cfg.yaml"):
        (tmp_path / name).write_text("x: 1\n")
    (tmp_path / "c.json").write_text('{"path": "${art:data,path}"}')
    (tmp_path / "near.json").write_text('{"path": "$art:data"}')
    (tmp_path / "t.py").write_text("print(1)\n")
    (tmp_path / "dry.py").write_text("parser.add_argument('--dry-run', '--state_dir')\n")
    os.mkfifo(tmp_path / "fifo.yaml")
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "plain.json").write_text('{"path": "/x"}')
    return tmp_path


def said(command, explicit=(), **environ):
    """The warnings about a command: about its words, and about the files of its configs."""
    found = without_silent(read(shlex.split(command), explicit, environ))
    warnings = Warnings()
    with contextlib.suppress(LaunchError):
        read_configs(
            found.configs,
            found.overrides,
            environ=environ,
            run_wandb=Injected(),
            resolve="artifacts",
            messages=warnings,
        )
    return [*doubts(found, Options(config=tuple(explicit)), environ), *warnings.said]


class Warnings:
    """Collects the warnings."""

    def __init__(self):
        self.said = []
        self.warning = self.said.append

    def debug(self, text):
        """Ignore debug messages."""


WARNED = {
    "bash -c 'python t.py cfg.yaml'": "cfg.yaml stays as it is",
    "sh -lc 'cd x; python t.py --config=cfg.yaml --lr 1'": "cfg.yaml stays as it is",
    """python t.py '{"config": "cfg.yaml"}'""": "cfg.yaml stays as it is",
    "python t.py cfg.yaml#train": "cfg.yaml stays as it is",
    "python t.py '[cfg.yaml]'": "cfg.yaml stays as it is",
    "bash -c 'python t.py cf*.yaml'": "cfg.yaml stays as it is",
    "python t.py cfg.yaml --dry-run": "nemotron-exec --dry-run",
    "python t.py cfg.yaml --backend wandb": "nemotron-exec --backend",
    "python t.py cfg.yaml --state-dir=/x": "nemotron-exec --state-dir",
    "python t.py cfg.yaml data.path=": "'data.path=${art:NAME,FIELD}' in single quotes",
    "python t.py cfg.yaml data.path=:data": "'data.path=${art:NAME,FIELD}' in single quotes",
    "python t.py cfg.yaml --data.path ''": "--data.path '' is empty",
    "python t.py cfg.yaml --data.path :data,path": "write --data.path '${art:NAME,FIELD}' in single quotes",
    "python t.py cfg.yaml 'x=$art{data}'": "write ${art:data,path}",
    "python t.py cfg.yaml 'x=${art-data}'": "write ${art:data,path}",
    "python t.py cfg.yaml 'x=${art:data,path'": "write ${art:data,path}",
    "srun --container-image=i --container-workdir=/nowhere python t.py cfg.yaml": "Start nemotron-exec behind srun",
    "docker run -w /nowhere image python t.py cfg.yaml": "cfg.yaml is not read",
    "python t.py cfg.yaml --recipe cgf.yaml": "cgf.yaml is not there",
    "python t.py cfg.yaml +data.path=": "'+data.path=${art:NAME,FIELD}' in single quotes",
    "python t.py cgf.yaml": "cgf.yaml is not there; did you mean cfg.yaml?",
    "python t.py --config cgf.yaml": "cgf.yaml is not there; did you mean cfg.yaml?",
    "python t.py --config=cgf.yaml": "cgf.yaml is not there; did you mean cfg.yaml?",
    "python t.py config=nowhere/cfg.yaml": "there is no directory nowhere",
    "python t.py c.json": "only YAML is read",
    "python t.py --config=c.json": "only YAML is read",
    "docker run image python t.py cfg.yaml": "Start nemotron-exec behind docker",
    "gosu nosuchuser python t.py cfg.yaml": "gosu changes the user to nosuchuser",
    "python t.py cfg.yaml 'x={art:data,path}'": "write ${art:data,path}",
    "python t.py cfg.yaml 'x=$art:data'": "write ${art:data,path}",
    # The config has nothing for nemotron-exec, but the short way to exec must not suppress these warnings.
    "python t.py plain.yaml --dry-run": "nemotron-exec --dry-run",
    "torchrun --nproc-per-node 1 t.py --config=plain.yaml --doctor": "nemotron-exec --doctor",
    "python t.py --resolve-only plain.yaml": "nemotron-exec --resolve-only",
    "python t.py plain.yaml --state-dir=/x": "nemotron-exec --state-dir",
    "python -m t plain.yaml --dry-run": "nemotron-exec --dry-run",
    "python t.py plain.yaml data.path=": "'data.path=${art:NAME,FIELD}' in single quotes",
    "python t.py --config plain.yaml ++data.train.path=": "'++data.train.path=${art:NAME,FIELD}' in single quotes",
    "python t.py plain.yaml 'x=$art:data,size'": "write ${art:data,size}",
    "python t.py 'x={art:data}'": "write ${art:data,path}",
    "python t.py 'x=${artifact:data}'": "write ${art:data,path}",
    "python t.py plain.yaml '--x=${art.data.path}'": "write ${art:data,path}",
    "python t.py near.json": "$art:data of near.json:1 is no artifact: write ${art:data,path}",
    "python t.py fifo.yaml": "fifo.yaml is no regular file",
    "python t.py --config=fifo.yaml": "fifo.yaml is no regular file",
}


@pytest.mark.parametrize(("command", "text"), WARNED.items())
def test_a_command_is_warned_about(here, command, text):
    (warning,) = said(command)
    assert text in warning
    assert may_need_resolving(shlex.split(command), {}, lambda: str(here))


UNREMARKABLE = [
    "python dry.py cfg.yaml --dry-run --state-dir /x",
    "python dry.py plain.yaml --dry-run",
    "kubectl apply -f plain.yaml --dry-run=client",
    "rsync --dry-run plain.yaml /x",
    "python t.py plain.yaml name=",
    "python t.py data.path=",
    "python t.py plain.yaml eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIx.c2ln=",
    "python t.py plain.yaml 'x=${artifacts.root}'",
    "python t.py plain.yaml 'x={{ artifact.name }}' 'y=${part:x}'",
    "python t.py pipe.json",
    "python t.py cfg.yaml",
    "python t.py --config=cfg.yaml a.b=1 ~c",
    "python t.py plain.yaml plain.json data=",
    "python t.py cfg.yaml --output out.yaml",
    "python t.py cfg.yaml --save-config=out.yaml",
    "python t.py cfg.yaml --report r.yaml",
    "python t.py cfg.yaml --snapshot r.yaml",
    "python t.py cfg.yaml --lock=cgf.yaml",
    "python t.py cfg.yaml @plain.yaml",
    "python t.py cfg.yaml 'none*.yaml'",
    "python t.py cfg.yaml '--config=my cfg.yaml'",
    "python t.py cfg.yaml --metrics-file=m.yaml",
    "python t.py cfg.yaml file://none.yaml",
    "python t.py cfg.yaml none.yaml:other.yaml",
    "python t.py plain.yaml 'a,cfg.yaml' 'my cfg.yaml'",
    "python t.py cfg.yaml n=:3 'x=${artifact-dir}'",
    "apptainer exec a.sif python t.py plain.yaml",
    "python t.py cfg.yaml results.file=out.yaml",
    "python t.py cfg.yaml --backend nccl",
    "bash -c 'python t.py plain.yaml'",
    "sudo python t.py cfg.yaml",
    "env -C . python t.py cfg.yaml",
    "python t.py cfg.yaml 'x=${art:data,path}/a,${ art : data }'",
]


@pytest.mark.parametrize("command", UNREMARKABLE)
def test_a_command_is_not_warned_about(here, command):
    assert said(command) == []


NEAR = {
    "$art:data,path": "${art:data,path}",
    "{art:data,path}": "${art:data,path}",
    "${art.data.path}": "${art:data,path}",
    "${artifact:data,path}": "${art:data,path}",
    "${arts:data}": "${art:data,path}",
    "${ART:data,pack_size}": "${art:data,pack_size}",
    "${art;data}": "${art:data,path}",
    "${art,data,path}": "${art:data,path}",
    "${art data}": "${art:data,path}",
    "$(art:data,path)": "${art:data,path}",
    "${{ art.data.path }}": "${art:data,path}",
    "{{ art:data }}": "${art:data,path}",
    "%{art:data,path}": "${art:data,path}",
    "prefix/${art.data.path}/x": "${art:data,path}",
}


@pytest.mark.parametrize(("text", "right"), {**NEAR, "art:data": "${art:data,path}"}.items())
def test_what_nearly_is_an_artifact_is_warned_about_with_the_right_spelling(here, text, right):
    (here / "near.yaml").write_text(f"run: {{data: 'blend:v1'}}\np: '{text}'\n")
    (warning,) = said("python t.py near.yaml")
    assert f"near.yaml:2 is no artifact: write {right}" in warning


# In a file without a `run` section these may belong to a template language.
ELSEWHERE = {"${art data}", "${{ art.data.path }}"}


@pytest.mark.parametrize(("text", "right"), [pair for pair in NEAR.items() if pair[0] not in ELSEWHERE])
def test_it_is_in_a_file_without_a_run_section(nemotron_exec, here, text, right):
    (here / "near.yaml").write_text(f"p: '{text}'\n")
    done = nemotron_exec("true", "near.yaml")
    assert done.returncode == 0
    assert done.stderr.count("warning: ") == 1
    assert f"write {right}" in done.stderr
    assert nemotron_exec("--strict", "true", "near.yaml").returncode == 125


OF_OTHERS = {
    "a chart": "name: {{ artifact.name }}\nimage: {{ .Values.art }}\n",
    "a workflow": "jobs:\n  a:\n    steps:\n      - run: echo ${artifact.id} ${artifact}\n",
    "a template of paths": "p: $ARTIFACT_DIR/x\nq: ${ARTIFACT_DIR}\nr: <article>\n",
    "a section of that name": "artifact: {id: 7}\np: ${artifact.id}\n",
    "prose": "p: state of the art: see below (art, music)\n",
    "a list": "tags: [art, music]\n",
}


@pytest.mark.parametrize("text", OF_OTHERS.values(), ids=OF_OTHERS)
def test_what_others_write_alike_is_left_alone(nemotron_exec, here, text):
    (here / "near.yaml").write_text(text)
    done = nemotron_exec("true", "near.yaml")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "line",
    [
        "p: ${art:data,path}",
        "p: ${ art : data }/x",
        "# p: $art:data,path",
        "p: 1  # like $art:data",
        "p: {art: data}",
        "artifacts: {root: /x}\np: ${artifacts.root}",
        "p: ${run.art.path}",
        "p: '\\${art:data}'",
        "p: smart:data",
        "p: ${part.x}",
    ],
)
def test_what_is_something_else_is_not(here, line):
    (here / "near.yaml").write_text(f"run: {{data: 'blend:v1'}}\n{line}\n")
    assert said("python t.py near.yaml") == []


CHILDREN = {
    "run: {data: 'blend:v1'}\ndefaults: near.yaml\n": "x: 1\np: $art:data\n",
    "run: {data: 'blend:v1'}\ndefaults: [plain.yaml, near.yaml]\n": "x: 1\np: '{art:data}'\n",
    "run: {data: 'blend:v1'}\ndefaults: between.yaml\n": "x: 1\np: ${art.data.path}\n",
    "defaults: ${oc.env:NAME}.yaml\nq: ${art:data}\n": "x: 1\np: ${artifact:data}\nrun: {data: 'blend:v1'}\n",
    "defaults: near.yaml\n": "x: 1\np: ${artifact:data}\n",
}


@pytest.mark.parametrize(("child", "parent"), CHILDREN.items())
def test_the_files_that_a_config_inherits_from_are_looked_at_too(here, monkeypatch, child, parent):
    (here / "child.yaml").write_text(child)
    (here / "between.yaml").write_text("defaults: near.yaml\n")
    (here / "near.yaml").write_text(parent)
    (warning,) = said("python t.py child.yaml --lr 1", NAME="near")
    assert " of near.yaml:2 is no artifact: write ${art:data,path}" in warning


def test_a_parent_is_looked_at_once_and_knows_the_sections_of_its_child(here):
    (here / "near.yaml").write_text("p: $art:data\nq: ${artifact.id}\n")
    for name in ("a.yaml", "b.yaml"):
        (here / name).write_text("run: {data: 'blend:v1'}\ndefaults: near.yaml\nartifact: {id: 7}\n")
    (warning,) = said("python t.py a.yaml b.yaml near.yaml")
    assert "$art:data of near.yaml:1" in warning


SELECTED = {
    "a default": ("defaults: [{db: near}]\n", "db/near.yaml", ""),
    "an optional default with a package": ("defaults: [{'optional db@x.y': near}]\n", "db/near.yaml", ""),
    "an absolute default": ("defaults: [{'override /db': near.yaml}]\n", "db/near.yaml", ""),
    "a default without a group": ("defaults: [near, _self_]\n", "near.yaml", ""),
    "a default with its group": ("defaults: [db/near]\n", "db/near.yaml", ""),
    "a list": ("defaults: [{db: [other, near]}]\n", "db/near.yaml", ""),
    "a default of a default": ("defaults: [{db: via}]\n", "db/near.yaml", ""),
    "an interpolated default": ("defaults: [{db: '${which}'}]\n", "db/near.yaml", ""),
    "an override": ("defaults: [{db: other}]\n", "db/near.yaml", "db=near"),
    "an addition": ("x: 1\n", "db/near.yaml", "+db@z=near"),
    "a nested group": ("x: 1\n", "db/sql/near.yaml", "+db/sql=near"),
    "a sweep": ("defaults: [{db: other}]\n", "db/near.yaml", "-m db=other,near"),
    "a choice": ("defaults: [{db: other}]\n", "db/near.yaml", "-m 'db=choice(other,near)'"),
    "a pattern": ("defaults: [{db: other}]\n", "db/near.yaml", "-m 'db=glob(*)'"),
}


@pytest.fixture
def program(here):
    """A Hydra program with the groups db and db/sql."""
    (here / "conf/db/sql").mkdir(parents=True)
    (here / "app.py").write_text(HYDRA)
    (here / "conf/db/other.yaml").write_text("x: 2\n")
    (here / "conf/db/via.yaml").write_text("defaults: [near]\nx: 2\n")
    return here


@pytest.mark.parametrize(("config", "file", "words"), SELECTED.values(), ids=SELECTED)
@pytest.mark.parametrize("run", ["run: {data: 'blend:v1'}\n", ""])
def test_the_groups_that_a_hydra_program_selects_are_looked_at_too(program, config, file, words, run):
    (program / "conf/config.yaml").write_text(config + run)
    (program / "conf" / file).write_text("x: 1\np: $art:data\n")
    (warning,) = said(f"python app.py {words}")
    assert f"$art:data of conf/{file}:2 is no artifact: write ${{art:data,path}}" in warning


@pytest.mark.parametrize("words", ["", "db=other", "~db", "+x=near"])
@pytest.mark.parametrize("run", ["run: {data: 'blend:v1'}\n", ""])
def test_a_group_that_it_does_not_select_is_not(program, words, run):
    (program / "conf/config.yaml").write_text(
        f"defaults: [{{db: {'near' if words[:2] in ('db', '~d') else 'other'}}}]\n{run}"
    )
    (program / "conf/db/near.yaml").write_text("p: $art:data\n")
    assert said(f"python app.py {words}") == []


def test_strict_makes_what_a_parent_or_a_group_nearly_says_an_error(program, nemotron_exec):
    (program / "d").mkdir()
    register(str(program / "store"), "blend", type="dataset", path=str(program / "d"), metadata={})
    store = {"NEMOTRON_EXEC_STORE": str(program / "store")}
    (program / "conf/config.yaml").write_text("defaults: [{db: near}]\nrun: {data: 'blend:v1'}\n")
    (program / "child.yaml").write_text("defaults: conf/db/near.yaml\nrun: {data: 'blend:v1'}\n")
    (program / "conf/db/near.yaml").write_text("x: 1\np: $art:data\n")
    for words in (["true", "child.yaml"], [sys.executable, "app.py"]):
        done = nemotron_exec(*words, env=store)
        assert done.stderr.count("warning: $art:data of conf/db/near.yaml:2 is no artifact") == 1, done.stderr
        assert done.returncode == 0, done.stderr
        done = nemotron_exec("--strict", *words, env=store)
        assert done.returncode == 125
        assert "conf/db/near.yaml:2" in done.stderr


@pytest.fixture
def recipe(here):
    """A training script like those of NVIDIA's recipes: without --config it reads config/default.yaml beside it."""
    config = here / "recipe" / "config"
    config.mkdir(parents=True)
    script = 'from pathlib import Path\nDEFAULT = Path(__file__).parent / "config" / "default.yaml"\n'
    (here / "recipe" / "train.py").write_text(script)
    (here / "recipe" / "other.py").write_text("print('reads no config')\n")
    (config / "default.yaml").write_text("run:\n  data: blend:latest\npath: ${art:data,path}\n")
    return here


FALLS_BACK = [
    "python recipe/train.py",
    "python -u recipe/train.py --max-steps 3 lr=1",
    "torchrun --nproc-per-node 2 recipe/train.py",
    "python -m recipe.train",
    "uv run python recipe/train.py",
    "env -C recipe python train.py",
    "bash -lc 'python recipe/train.py'",
    "bash -lc 'cd recipe && python train.py --lr 1'",
    "srun bash -lc 'export A=1; cd recipe; exec torchrun train.py'",
]


@pytest.mark.parametrize("command", FALLS_BACK)
def test_a_script_that_falls_back_to_a_config_with_artifacts_is_warned_about(recipe, command):
    (warning,) = said(command)
    assert warning.startswith("no config of the command names an artifact, and nothing is resolved")
    assert "recipe/config/default.yaml" in warning
    assert "nemotron-exec -c" in warning
    assert may_need_resolving(
        shlex.split(command), {}, lambda: str(recipe)
    )  # the short way to exec does not suppress it


def test_what_says_which_config_a_script_reads_keeps_it_from_falling_back(recipe):
    default = "recipe/config/default.yaml"
    assert said(f"python recipe/train.py --config {default}") == []
    assert said("python recipe/train.py --config plain.yaml") == []
    assert said("python recipe/other.py") == []
    assert said("bash -lc 'cd recipe && nemotron-exec python train.py'") == []
    assert said("bash -lc 'cd $HERE && python recipe/train.py'") == []
    assert said("python recipe/train.py", NEMOTRON_EXEC_HANDOFF="/x") == []
    (warning,) = said("python recipe/train.py", [default])
    assert warning.startswith(f"-c {default}: no word of the command names this file")


@pytest.mark.parametrize("text", ["run:\n  name: try\nlr: 1\n", "run: fast\n", "lr: 1\n", "x: ${oc.env:HOME}\n"])
def test_a_default_config_that_names_no_artifact_is_nobodys_business(recipe, text):
    (recipe / "recipe/config/default.yaml").write_text(text)
    assert said("python recipe/train.py") == []


def test_a_file_inside_the_text_of_a_shell_is_found_where_the_shell_changes_to(recipe):
    (recipe / "recipe/config.yaml").write_text("run:\n  data: blend:latest\n")
    (warning,) = said("bash -lc 'cd recipe && python train.py --config config.yaml'")
    assert warning.startswith("config.yaml stays as it is")
    assert said("bash -lc 'cd recipe && nemotron-exec python train.py --config config.yaml'") == []


HYDRA = "import hydra\n@hydra.main(version_base=None, config_path='conf', config_name='config')\ndef main(c): ...\n"
IN_A_SHELL = [
    "bash -c 'python app.py'",
    "bash -lc 'cd hy && python app.py +x=1'",
    "srun bash -c 'cd hy; exec torchrun --nproc-per-node 2 app.py'",
    "bash -c 'python -m hy.app'",
    "sh -c 'cd hy; python app.py --config-path conf'",
]


@pytest.mark.parametrize("command", IN_A_SHELL)
def test_a_hydra_program_inside_the_text_of_a_shell(here, command):
    for folder in ("", "hy"):
        (here / folder / "conf").mkdir(parents=True)
        (here / folder / "conf/config.yaml").write_text("run: {data: 'blend:v1'}\np: ${art:data,path}\n")
        (here / folder / "app.py").write_text(HYDRA)
    (warning,) = said(command)
    assert "conf/config.yaml stays as it is" in warning
    assert may_need_resolving(shlex.split(command), {}, lambda: str(here))
    for folder in ("", "hy"):
        (here / folder / "conf/config.yaml").write_text("x: 1\n")
    assert said(command) == []


def test_doctor_and_dry_run_say_that_no_config_names_an_artifact(recipe, nemotron_exec, bare_path, monkeypatch):
    monkeypatch.setenv("PATH", str(bare_path))
    for option in ("--doctor", "--dry-run"):
        done = nemotron_exec(option, "python", "recipe/train.py", cwd=recipe)
        assert "may fall back to recipe/config/default.yaml" in done.stdout + done.stderr, option
        assert "no config of the command names" in done.stdout
    done = nemotron_exec(sys.executable, "recipe/train.py", cwd=recipe)
    assert done.returncode == 0
    assert done.stderr.count("may fall back to recipe/config/default.yaml") == 1
    done = nemotron_exec("--strict", sys.executable, "recipe/train.py", cwd=recipe)
    assert done.returncode == 125


def test_a_named_config_that_no_word_names(here):
    (warning,) = said("python t.py", ["cfg.yaml"])
    assert warning.startswith("-c cfg.yaml: no word of the command names this file")
    assert said("python t.py ./cfg.yaml", ["cfg.yaml"]) == []


VARIABLES = {
    ("NEMOTRON_EXEC_STORES", "/x"): "did you mean NEMOTRON_EXEC_STORE?",
    ("NEMOTRON_EXEC_JOBID", "7"): "did you mean NEMOTRON_EXEC_JOB_ID?",
    ("NEMOTRON_EXEC_DISABLED_PATCHES", "lineage,nemorl"): "did you mean nemo-rl?",
    ("NEMOTRON_EXEC_DISABLED_PATCHES", "NeMo-RL"): "did you mean nemo-rl?",
    ("NEMOTRON_EXEC_DISABLED_PATCHES", "x"): "there are lineage, megatron-bridge",
}


@pytest.mark.parametrize(("variable", "text"), VARIABLES.items())
def test_a_variable_that_nothing_reads(here, variable, text):
    (warning,) = said("python t.py cfg.yaml", **dict([variable]))
    assert text in warning


@pytest.mark.parametrize("name", ["NEMOTRON_EXEC_STORE", "NEMOTRON_EXEC_ACTIVE", "NEMOTRON_EXEC_CODE_REF"])
def test_a_variable_that_is_read(here, name):
    assert said("python t.py cfg.yaml", **{name: "x"}) == []


def test_strict_makes_the_warnings_of_later_steps_errors_too(nemotron_exec, here):
    (here / "cfg.yaml").write_text("run: {data: 'blend:v1', image: 'ubuntu:latest'}\np: ${art:data,path}\n")
    (here / "d").mkdir()
    register(str(here / "store"), "blend", type="dataset", path=str(here / "d"), metadata={})
    store = {"NEMOTRON_EXEC_STORE": str(here / "store")}
    done = nemotron_exec("true", "cfg.yaml", env=store)
    assert done.returncode == 0
    assert "warning: " in done.stderr
    done = nemotron_exec("--strict", "true", "cfg.yaml", env=store)
    assert done.returncode == 125
    assert "ubuntu:latest is taken for no artifact" in done.stderr
    (here / "env.toml").write_text("[wandb\n")
    assert nemotron_exec("true", "none.txt", env=store).returncode == 0
    assert nemotron_exec("--strict", "true", "none.txt", env=store).returncode == 125


def test_strict_makes_each_an_error(nemotron_exec, here):
    done = nemotron_exec("--strict", "true", "cgf.yaml")
    assert done.returncode == 125
    assert "cgf.yaml is not there; did you mean cfg.yaml?" in done.stderr
    done = nemotron_exec("true", "cgf.yaml")
    assert done.returncode == 0
    assert done.stderr.count("warning: cgf.yaml is not there") == 1


def test_the_doctor_says_who_cannot_read_the_resolved_config(nemotron_exec, here, bare_path, monkeypatch):
    monkeypatch.setenv("PATH", str(bare_path))
    (here / "gosu").write_text("#!/bin/sh\n")
    (here / "gosu").chmod(0o755)
    done = nemotron_exec("--doctor", "./gosu", "nosuchuser", "python3", "t.py", "cfg.yaml")
    assert "gosu changes the user to nosuchuser" in done.stdout
