"""Overrides in forms that only the script knows: values that may depend on them stay interpolations."""

from __future__ import annotations

import shlex

import pytest

from nemotron_exec.artifacts.artifact import Artifact
from nemotron_exec.command.read import read as read_command
from nemotron_exec.config.config import read
from nemotron_exec.config.files import Header
from nemotron_exec.config.run_section import Injected
from nemotron_exec.errors import LaunchError

CONFIG = """\
run: {data: 'blend:v1'}
root: ${art:data,path}
model: {seq_length: 8, name: m, layers: [1, 2]}
train: ${root}/train
size: ${mul:${model.seq_length},2}
"""


class Kept:
    """Collects warnings for a test."""

    def __init__(self, warnings):
        self.warning = warnings.append


def resolved(tmp_path, monkeypatch, command, warnings=None, text=CONFIG):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cfg.yaml").write_text(text)
    found = read_command(shlex.split(command))
    config = read(
        found.configs,
        found.overrides,
        environ={},
        run_wandb=Injected(),
        resolve="artifacts",
        words=found.argv,
        start=found.program + 1,
        messages=None if warnings is None else Kept(warnings),
    )
    artifact = Artifact("data", "blend:v1", "manifest", "blend", "v1", "dataset", "/d1", "blend:v1")
    return config.render({"data": artifact}, directory="/nowhere", header=Header("now"))


ROOT = [
    "root=/o",
    "--root=/o",
    "--root /o",
    "-root /o",
    "root /o",
    "--options root=/o",
    "--options=root=/o",
    "--options root=/o b=2",
    "--options b=2 root=/o",
    "--cfg-options root=/o",
    "-o root=/o",
    "--set root=/o",
    "--unset=root",
    "--opts root /o",
    "root:=/o",
    "--overrides 'root=/o b=1'",
    "--overrides root=/o,b=1",
    """--json '{"root": "/o"}'""",
    "-oroot=/o",
    "-Droot=/o",
    "--roo=/o",
    "--roo /o",
    "--config.root=/o",
    "--cfg.root /o",
    "config.root=/o",
    "--override 'root: /o'",
    "root:/o",
    "root=>/o",
    "root+=/o",
    "'[root=/o]'",
    """--kwargs "dict(root='/o')\"""",
    "/root=/o",
    "/root:/o",
    "@root=/o",
    "root@x=/o",
    "'root'=/o",
    """"'root'=/o\"""",
    """'"root"=/o'""",
    "'root = /o'",
    "root->/o",
    "root?=/o",
    "env.root=/o",
    "a.b.root=/o",
    "--cfg-root /o",
    "--ROOT",
    "--ROOT=/o",
    "ROOT=/o",
    "--noroot",
    "--no-root",
    "-r /o",
    "-r/o",
    "-vr /o",
    "-R=/o",
    "--r /o",
    "--in env root=/o in--",
    """--gin_param 'Model.root = "/o"'""",
    """--set-json '.root = "/o"'""",
    "root",
    "@args.txt",
    "--flagfile=args.txt",
    "--args-file args.txt",
]


@pytest.mark.parametrize("words", ROOT)
def test_what_depends_on_it_stays_an_interpolation(tmp_path, monkeypatch, words):
    (tmp_path / "args.txt").write_text("# of every run\n--lr 1\n--root=/o\n")
    text = resolved(tmp_path, monkeypatch, f"python t.py cfg.yaml {words}").files[0].text.decode()
    assert "train: ${root}/train" in text


@pytest.mark.parametrize("text", ["model name=x", "model name=x lr", "--lr 1\nmodel name=x 1"])
def test_a_mapping_before_pairs_in_a_file_of_words_stays_an_interpolation(tmp_path, monkeypatch, text):
    (tmp_path / "args.txt").write_text(text)
    resolved_ = resolved(tmp_path, monkeypatch, "python t.py cfg.yaml @args.txt").files[0].text.decode()
    assert "size: ${mul:${model.seq_length},2}" in resolved_


NESTED = [
    "--model.seq_length=4",
    "--model.seq-length 4",
    "model/seq_length=4",
    "--model.seq_length",
    "-x model.seq_length=4",
    "--seq_length 4",
    "--seq-length=4",
    "--seqLength=4",
    "--seq 4",
    "--model.seq 4",
    "--model_seq_length 4",
    "--model-seq-length=4",
    "--model__seq_length=4",
    "MODEL__SEQ_LENGTH=4",
    "model:seq_length=4",
    "model::seq_length=4",
    "'model[\"seq_length\"]=4'",
    "'cfg.model[seq_length]=4'",
    "--model.init_args.seq_length=4",
    "-sl 4",
    "--model seq_length=4 name=x",
    "model name=x seq_length=4",
    "model name=x",
    "with model.seq_length=4",
]


@pytest.mark.parametrize("words", NESTED)
def test_a_nested_key(tmp_path, monkeypatch, words):
    text = resolved(tmp_path, monkeypatch, f"python t.py cfg.yaml {words}").files[0].text.decode()
    assert "size: ${mul:${model.seq_length},2}" in text
    assert "train: /d1/train" in text


OTHERS = [
    *["--lr=1", "--lr 1", "model fit", "--note 'a root of b'", "--out rooted=1", "--config-dir x", "--roots=/o", ""],
    *[
        "model.name=m",
        "--model.name m",
        "-n 1",
        "--out /data/root",
        "--url=http://h:80/root",
        "@none.txt",
        "--uproot=1",
    ],
    *["--model.layers.7=1", "model.layers.7=1", "--xyzr 1", "-xyzr 1"],
    *["--time=12:30", "rooted", "-x 3", "--is-rooted", "--uproot=1", "++a.b=1"],
    *["--out data/root", "--out model/seq_length", "sl", "--split sl"],
]


@pytest.mark.parametrize("words", OTHERS)
def test_what_is_about_no_key_of_the_config_changes_nothing(tmp_path, monkeypatch, words):
    text = resolved(tmp_path, monkeypatch, f"python t.py cfg.yaml {words}").files[0].text.decode()
    assert "train: /d1/train" in text
    assert "size: 16" in text


def test_an_artifact_in_it_is_filled_in(tmp_path, monkeypatch):
    rendered = resolved(tmp_path, monkeypatch, "python t.py cfg.yaml '--root=${art:data,path}/x'")
    assert rendered.arguments[3] == "--root=/d1/x"


REFUSED = {
    "--run.data=base:v1": "Write run.data=base:v1",
    "--run.data base:v1": "Write run.data=base:v1",
    "--run.data --lr 1": "Write run.data=",
    "--run.data=": "Write run.data=name:version",
    "-run.data=base:v1": "Write run.data=base:v1",
    "run.data base:v1": "Write run.data=base:v1",
    "--options run.data=base:v1": "Write run.data=base:v1",
    "--set run.data=base:v1": "Write run.data=base:v1",
    "--options=run.data=base:v1": "Write run.data=base:v1",
    "--overrides 'run.data=base:v1 a=1'": "Write run.data=base:v1",
    "--cfg.run.data=base:v1": "Write run.data=base:v1",
    "cfg.run.data=base:v1": "Write run.data=base:v1",
    "-orun.data=base:v1": "Write run.data=base:v1",
    "run.data:base:v1": "Write run.data=base:v1",
    """'{"run": {"data": "base:v1"}}'""": "Write run.KEY=name:version",
    "--run='{data: base:v1}'": "Write run.KEY=name:version",
    "--run '{data: base:v1}'": "Write run.KEY=name:version",
    "--run-data=base:v1": "Write run.data=base:v1",
    "--run-data base:v1": "Write run.data=base:v1",
    "--run_data=hf://org/model": "Write run.data=hf://org/model",
    "run_data=base:v1": "Write run.data=base:v1",
    "--run data=base:v1": "Write run.data=base:v1",
    "--RUN.DATA=base:v1": "Write run.data=base:v1",
    "RUN.data=base:v1": "Write run.data=base:v1",
    "/run.data=base:v1": "Write run.data=base:v1",
    """"'run'.data=base:v1\"""": "Write run.data=base:v1",
    """'cfg["run"]["data"]=base:v1'""": "Write run.data=base:v1",
    "run:data=base:v1": "Write run.data=base:v1",
    "a.b.run.data=base:v1": "Write run.data=base:v1",
    "'run.data = base:v1'": "Write run.data=base:v1",
    "@args.txt": "Write run.data=base:v1",
    "--set 'run.data: base:v1'": "Write run.data=base:v1",
    "--yaml $'run:\\n  data: base:v1'": "Write run.data=base:v1",
    "--yaml $'run:\\n\n  # a note\n  x: 1\n  data: base:v1'": "Write run.data=base:v1",
    "run.data: base:v1": "Write run.data=base:v1",
    "run.data == base:v1": "Write run.data=base:v1",
    "'run.data => base:v1'": "Write run.data=base:v1",
    "'run.data base:v1'": "Write run.data=base:v1",
    "'run.data->base:v1'": "Write run.data=base:v1",
    "run.data = base:v1": "Write run.data=base:v1",
    "run.data := base:v1": "Write run.data=base:v1",
    "over.json": "Write run.data=base:v1",
    "--overrides=over.json": "Write run.data=base:v1",
    "@over.json": "Write run.data=base:v1",
    "--run.wandb.project=x": "Write run.wandb.project=x",
    "--run.checkpoints=last": "Write run.checkpoints=last",
}


@pytest.mark.parametrize(("words", "remedy"), REFUSED.items())
def test_what_the_launcher_has_to_apply_is_refused_with_the_form_that_it_can(tmp_path, monkeypatch, words, remedy):
    (tmp_path / "args.txt").write_text("--lr 1\nrun.data=base:v1\n")
    (tmp_path / "over.json").write_text('{"lr": 1, "run": {"data": "base:v1"}}')
    words = words.replace("$'run:\\n", "'run:\n")
    with pytest.raises(LaunchError) as caught:
        resolved(tmp_path, monkeypatch, f"python t.py cfg.yaml {words}")
    assert remedy in caught.value.remedy


@pytest.mark.parametrize(
    "words",
    ["--overrides run.data=blend:v1 a=1", "run.data=blend:v1", "--log run.log", "run.py"]
    + ["--log run.log:DEBUG", "--run fast", "--run-name x", "x.run.y=1", "blend:v1", "http://run.example/x"]
    + ["--out run/data --lr 1", "--out run.data --lr 1", "--out run/data x", "--in run/data:v1", "--in run.data x"]
    + ["--url=http://run.data/x", "--other base:v1", "hydra.run.data=x", "run_name=base:v1", "--rundata base:v1"]
    + ["--wandb.run.name foo", "--mlflow.run.id 7", "--cmd=run.sh=1", "--tags run.id=3", "--env run.x=1", "--run.x=1"]
    + ["-- run.data=blend:v1", "run=fast", "--wandb.run.data.x y", "--notes 'about run.data here'"]
    + ["same.json", "list.json", "none.json", "cut.json"],
)
def test_what_it_can_apply_or_is_none_is_not_refused(tmp_path, monkeypatch, words):
    (tmp_path / "same.json").write_text('{"run": {"data": "blend:v1", "id": 7}}')
    (tmp_path / "list.json").write_text('[{"run": 1}]')
    (tmp_path / "cut.json").write_text('{"run": {"data": ')
    warnings = []
    resolved(tmp_path, monkeypatch, f"python t.py cfg.yaml {words}", warnings)
    assert warnings == []


MAY_BE = [
    "--data base:v1",
    "--data=base:v1",
    "data=base:v1",
    "--run-data /x",
    "RUN.DATA=/x",
    "--run_data=x",
]


@pytest.mark.parametrize("words", MAY_BE)
def test_what_may_be_meant_for_run_or_be_the_scripts_own_is_warned_about(tmp_path, monkeypatch, words):
    warnings = []
    resolved(tmp_path, monkeypatch, f"python t.py cfg.yaml {words}", warnings)
    assert len(warnings) == 1
    assert "may be meant for run.data" in warnings[0]
    assert f"write run.data={words.replace('=', ' ', 1).split()[1]}" in warnings[0]


@pytest.mark.parametrize("name", ["run2", "train", "zoo", "data", "ru"])
def test_only_what_is_below_run_has_to_be_applied(tmp_path, monkeypatch, name):
    given = CONFIG.replace("train:", f"{name}: {{data: 'blend:v1'}}\nout: ${{{name}.data}}\nmore:")
    command = f"python t.py cfg.yaml cfg.{name}.data=base:v1"
    text = resolved(tmp_path, monkeypatch, command, text=given).files[0].text.decode()
    assert f"out: ${{{name}.data}}" in text
    assert "more: /d1/train" in text


def test_two_configs_with_two_versions_of_one_artifact_are_refused(tmp_path, monkeypatch):
    (tmp_path / "other.yaml").write_text("run: {data: 'blend:v2'}\n")
    with pytest.raises(LaunchError) as caught:
        resolved(tmp_path, monkeypatch, "python t.py cfg.yaml other.yaml")
    assert "it is blend:v1 in cfg.yaml:1, and blend:v2 in other.yaml:1" in caught.value.found.replace(
        f"{tmp_path}/", ""
    )
    assert "run.data=blend:v2" in caught.value.remedy
    for words in ("run.data=blend:v1", "run.data=blend:v2"):
        assert resolved(tmp_path, monkeypatch, f"python t.py cfg.yaml other.yaml {words}").files
    (tmp_path / "other.yaml").write_text("run: {data: 'blend:v1', more: 'blend:v2'}\n")
    assert resolved(tmp_path, monkeypatch, "python t.py cfg.yaml other.yaml").files


FURTHER = {
    "o.yaml": "root: /o\n",
    "flat.yaml": "model.seq_length: 16\nroot: /o\n",
    "below.yaml": "config: {root: /o}\n",
    "words.yaml": "overrides: ['root=/o', lr=1]\n",
    "o.json": '{"root": "/o"}',
    "o.toml": 'root = "/o"\n',
    "none.yaml": "root: null\n",
    "empty.yaml": "root: {}\n",
}


@pytest.mark.parametrize(
    "form", ["{}", "--overrides {}", "--overrides={}", "overrides={}", "@{}", "-f {}", "x.yaml,{}"]
)
@pytest.mark.parametrize("name", FURTHER)
def test_what_depends_on_a_key_of_a_further_file_stays_an_interpolation(tmp_path, monkeypatch, name, form):
    (tmp_path / name).write_text(FURTHER[name])
    (tmp_path / "x.yaml").write_text("x: 1\n")
    warnings = []
    text = resolved(tmp_path, monkeypatch, f"python t.py cfg.yaml {form.format(name)}", warnings).files[0].text.decode()
    assert "train: ${root}/train" in text
    assert warnings == []


def test_a_file_that_is_neither_yaml_nor_json_nor_toml_is_not_read(tmp_path, monkeypatch):
    (tmp_path / "notes.txt").write_text('root = "/o"\n')
    text = resolved(tmp_path, monkeypatch, "python t.py cfg.yaml --notes=notes.txt").files[0].text.decode()
    assert "train: /d1/train" in text


@pytest.mark.parametrize(
    ("script", "kept"), [("import yaml\n", False), ("from omegaconf import OmegaConf\n", True), (None, True)]
)
@pytest.mark.parametrize("form", ["--tokenizer o.yaml", "o.yaml", "--config o.yaml"])
def test_a_further_file_counts_in_a_program_that_may_merge_it(tmp_path, monkeypatch, script, kept, form):
    (tmp_path / "o.yaml").write_text("root: /o\n")
    if script is not None:
        (tmp_path / "t.py").write_text(script)
    text = resolved(tmp_path, monkeypatch, f"python t.py cfg.yaml {form}").files[0].text.decode()
    assert ("train: ${root}/train" in text) == kept
    (tmp_path / "o.yaml").write_text("x: {root: {y: 1}}\nlr: 1\n")
    text = resolved(tmp_path, monkeypatch, "python t.py cfg.yaml o.yaml").files[0].text.decode()
    assert "train: /d1/train" in text


def test_a_file_that_is_too_large_to_be_written_by_hand_is_not_parsed(tmp_path, monkeypatch):
    (tmp_path / "data.yaml").write_text("root: /o\n" + "# data\n" * 40_000)
    text = resolved(tmp_path, monkeypatch, "python t.py cfg.yaml data.yaml").files[0].text.decode()
    assert "train: /d1/train" in text


NOT_APPLIED = {"run: {data: 'base:v1'}\n": 1, "run: {more: 'base:v1'}\n": 1, "run: {wandb: {project: x}}\n": 1}
# This is another reference to the same artifact: a lock may pin the config's `latest`.
NOT_APPLIED["run: {data: 'blend:latest'}\n"] = 0


@pytest.mark.parametrize(("text", "warnings"), NOT_APPLIED.items())
def test_where_c_names_the_config_the_run_section_of_a_further_file_is_warned_about(
    tmp_path, monkeypatch, text, warnings
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "o.yaml").write_text(text)
    (tmp_path / "cfg.yaml").write_text(CONFIG)
    words = ("python", "t.py", "cfg.yaml", "o.yaml")
    found = read_command(words, ["cfg.yaml"])
    said = []
    read(found.configs, (), environ={}, run_wandb=Injected(), resolve="artifacts", words=words, start=2,
         messages=Kept(said))  # fmt: skip
    assert len(said) == warnings
    assert all("o.yaml is not applied" in one for one in said)


@pytest.mark.parametrize("words", ["--metric run/data=1", "--wandb.run.data foo", "--notes 'run.data=5 is new'"])
def test_a_value_that_is_no_reference_stops_nothing(tmp_path, monkeypatch, words):
    warnings = []
    assert resolved(tmp_path, monkeypatch, f"python t.py cfg.yaml {words}", warnings).files
    assert all("may be meant for run.data" in warning for warning in warnings)
