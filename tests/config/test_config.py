"""The command's configs, read and rendered."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from expressions import AWKWARD
from nemotron_exec import __version__
from nemotron_exec.artifacts.artifact import Artifact
from nemotron_exec.command.override import parse_overrides
from nemotron_exec.command.words import ConfigArgument
from nemotron_exec.config.config import Config, read
from nemotron_exec.config.files import Header, Rendered
from nemotron_exec.config.render import encode_text
from nemotron_exec.config.run_section import Injected, profile_overrides
from nemotron_exec.document.document import Document
from nemotron_exec.errors import LaunchError
from nemotron_exec.patches import describe
from nemotron_exec.sitecustomize.payload.frameworks import FRAMEWORKS, saved_by

HEADER = Header("2026-03-11T10:00:00+00:00")


def artifact(key: str, **metadata: object) -> Artifact:
    return Artifact(
        key,
        f"{key}:latest",
        "manifest",
        f"{key}-name",
        "v3",
        "dataset",
        f"/artifacts/{key}",
        f"{key}-name:v3",
        iteration=10000,
        metadata={"pack_size": 4096, **metadata},
    )


def open_config(path: Path, *words: str, injected: Injected | None = None, resolve: str = "artifacts") -> Config:
    return read(
        [ConfigArgument(1, "", str(path), explicit=True)],
        parse_overrides(words, 2),
        environ={},
        run_wandb=injected or Injected("nemotron", "my-team"),
        resolve=resolve,  # type: ignore[arg-type]
    )


def render(path: Path, *words: str, **options: object) -> Rendered:
    config = open_config(path, *words, **options)  # type: ignore[arg-type]
    artifacts = {reference.key: artifact(reference.key) for reference in config.references}
    return config.render(artifacts, directory=str(path.parent / "resolved"), header=HEADER)


HEADER_LINES = ("# Resolved", "# at ", "# run.")


def body(rendered: Rendered) -> str:
    """The text of the rendered file without the header."""
    lines = rendered.files[0].text.decode().splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith(HEADER_LINES))


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str, name: str = "config.yaml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
        return path

    return write


def test_references_of_the_run_section_are_found_with_their_lines(write):
    config = open_config(
        write(
            """\
run:
  data: PretrainBlendsArtifact-default:latest
  model: nvidia/NVIDIA-Nemotron-BF16
  teacher: super3/rl/swe1/data:7
  env: {container: "nvcr.io/nvidia/nemo:25.11"}
"""
        )
    )
    assert [(reference.key, reference.alias, reference.origin.line) for reference in config.references] == [
        ("data", "latest", 2),
        ("teacher", "v7", 4),
    ]


def test_only_what_is_ours_changes_and_everything_else_stays_byte_for_byte(write):
    rendered = render(
        write(
            """\
# a comment
run:
  data: D:latest   # the data
  wandb: {project: p, entity: e}
recipe:
    _target_:   megatron.bridge.recipes.x
    blend:  ${art:data,path}/blend.json  # from the artifact
    pack: "${art:data,pack_size}"
    twice: ${mul:${art:data,pack_size},2}
    home: ${oc.env:HOME}/x
    on: off
"""
        )
    )
    assert body(rendered) == (
        """\
# a comment
run:
  data: D:latest   # the data
  wandb: {project: p, entity: e}
recipe:
    _target_:   megatron.bridge.recipes.x
    blend:  /artifacts/data/blend.json  # from the artifact
    pack: 4096
    twice: 8192
    home: ${oc.env:HOME}/x
    on: off
"""
    )


def test_run_wandb_is_filled_from_the_environment_and_the_configs_own_values_win(write):
    path = write("run:\n  data: D:v1\n  wandb:\n    project: mine\n    entity: null\nx: ${run.wandb.entity}\n")
    text = body(render(path))
    assert yaml.safe_load(text)["run"]["wandb"] == {"project": "mine", "entity": "my-team"}
    assert OmegaConf.create(text).x == "my-team"


def test_run_overrides_are_applied_and_taken_out_of_the_command(write):
    path = write("run:\n  data: D:v1\nx: ${art:data,path}\n")
    rendered = render(path, "run.data=E:v2", "trainer.lr=1e-4", "y=${art:data,path}/z")
    assert yaml.safe_load(body(rendered))["run"]["data"] == "E:v2"
    assert rendered.dropped == {2}
    assert rendered.arguments[4] == "y=/artifacts/data/z"
    assert set(rendered.arguments) == {1, 4}


# --- expressions that the command's overrides may change


OVERRIDDEN = """\
run: {data: D:v1, which: data}
base: {seq: 4, name: a}
twice: ${mul:${base.seq}, 2}
other: ${mul:${base.more.x}, 2}
pick: ${art:${base.name},path}
out: ${art:data,path}/${base.name}
lst: [1, 2]
first: ${mul:${lst[0]}, 2}
const: ${mul:3, 2}
"""

#    words, keys that stay interpolations (nemotron-exec's parts in them are filled in)
OPEN = {
    "nothing": ([], {"other", "out"}),
    "a value": (["base.seq=8"], {"twice", "other", "out"}),
    "an added value": (["+base.seq=8"], {"twice", "other", "out"}),
    "a forced value": (["++base.more.x=8"], {"other", "out"}),
    "a deleted value": (["~base.seq"], {"twice", "other", "out"}),
    "a deleted section": (["~base"], {"twice", "other", "out"}),
    "a section": (["base={seq: 1}"], {"twice", "other", "out"}),
    "a list": (["lst=[5]"], {"first", "other", "out"}),
    "an item of a list": (["lst.0=5"], {"first", "other", "out"}),
    "a quoted value": (["base.seq='8'"], {"twice", "other", "out"}),
    "a package": (["seq@base.seq=8"], {"twice", "other", "out"}),
    "something else": (["optimizer.lr=1e-4", "base.unused=1"], {"other", "out"}),
}


@pytest.mark.parametrize(("words", "left"), OPEN.values(), ids=OPEN)
def test_what_an_override_could_change_stays_an_interpolation(write, words, left):
    text = OVERRIDDEN.replace("pick: ${art:${base.name},path}\n", "")
    found = yaml.safe_load(body(render(write(text), *words)))
    assert {key for key, value in found.items() if "${" in str(value)} == left
    assert found["out"] == "/artifacts/data/${base.name}"


def test_an_artifact_that_an_override_chooses_stays_an_interpolation(write):
    text = "run: {data: D:v1}\nname: data\npick: ${art:${name},path}\nplain: ${art:data,path}\n"
    assert yaml.safe_load(body(render(write(text))))["pick"] == "/artifacts/data"
    found = yaml.safe_load(body(render(write(text), "name=model")))
    assert found["pick"] == "${art:${name},path}"
    assert found["plain"] == "/artifacts/data"


def test_resolve_all_takes_what_means_the_same_on_every_rank(write):
    text = "a: 1\nb: ${a}\nc: x${a}\nd: ${oc.env:HOME}\ne: ${d}/x\nrun: {}\nf: ${g.h}\ng: {h: 2}\n"
    found = yaml.safe_load(body(render(write(text), "g.h=3", resolve="all")))
    assert (found["b"], found["c"], found["d"], found["e"], found["f"]) == (
        1,
        "x1",
        "${oc.env:HOME}",
        "${d}/x",
        "${g.h}",
    )


# --- run.wandb in every form of a run section

WANDB = {
    "block": ("run:\n    data: D:v1\nx: 1\n", "run:\n    wandb: {project: p, entity: e}\n    data: D:v1\nx: 1\n"),
    "flow": ("run: {data: D:v1}\n", "run: {wandb: {project: p, entity: e}, data: D:v1}\n"),
    "empty flow": ("run: {}\n", "run: {wandb: {project: p, entity: e}}\n"),
    "null": ("run:\nx: ${run.wandb.project}\n", "run: {wandb: {project: p, entity: e}}\nx: p\n"),
    "tilde": ("run: ~\nx: ${run.wandb.project}\n", "run: {wandb: {project: p, entity: e}}\nx: p\n"),
    "absent": ("# c\nx: ${run.wandb.project}\n", "# c\nrun: {wandb: {project: p, entity: e}}\nx: p\n"),
    "absent and not asked for": ("x: ${art}\n", None),
    "aliased": ("b: &b {k: 1}\nrun: *b\n", "b: &b {k: 1}\nrun: {<<: *b, wandb: {project: p, entity: e}}\n"),
    "null in wandb": ("run: {wandb: {project: null, entity: e2}}\n", "run: {wandb: {project: p, entity: e2}}\n"),
    "empty in wandb": ("run:\n  wandb:\n    project:\n", "run:\n  wandb:\n    entity: e\n    project: p\n"),
    "anchored": ("run: &r {data: D:v1}\nagain: *r\n", None),
    "list in wandb": ("run: {wandb: [a]}\nx: ${run.wandb}\n", None),
    "text in wandb": ("run: {wandb: mine}\nx: 1\n", None),
    "null wandb": ("run:\n  wandb: null\n  k: 1\n", "run:\n  wandb: {project: p, entity: e}\n  k: 1\n"),
    "windows lines": ("run:\r\n  k: 1\r\n", "run:\r\n  wandb: {project: p, entity: e}\r\n  k: 1\r\n"),
    "commented": ("run:  # c\n  # d\n  k: 1\n", "run:  # c\n  # d\n  wandb: {project: p, entity: e}\n  k: 1\n"),
    "quoted key": ("'run':\n  k: 1\n", "'run':\n  wandb: {project: p, entity: e}\n  k: 1\n"),
    "explicit key": ("run:\n  ? k\n  : 1\n", "run:\n  wandb: {project: p, entity: e}\n  ? k\n  : 1\n"),
}


@pytest.mark.parametrize(("before", "after"), WANDB.values(), ids=WANDB)
def test_run_wandb_is_written_into_every_form_of_a_run_section(write, before, after):
    rendered = render(write(before), injected=Injected("p", "e"))
    found = rendered.files[0].text.decode() if rendered.files else None
    if found is not None:
        found = "".join(line for line in found.splitlines(keepends=True) if not line.startswith(HEADER_LINES))
    assert found == after


ASKED_FOR = {
    "neither known": ("run: {data: D:v1}\nx: ${run.wandb.project}\ny: ${run.wandb.entity}\n", {}, [None, None]),
    "project known": (
        "run: {data: D:v1}\nx: ${run.wandb.project}\ny: ${run.wandb.entity}\n",
        {"project": "p"},
        ["p", None],
    ),
    "in the config": ("run: {wandb: {project: p}}\nx: ${run.wandb.project}\ny: ${run.wandb.entity}\n", {}, ["p", None]),
    "null": (
        "run: {wandb: {project: null, entity: }}\nx: ${run.wandb.project}\ny: ${run.wandb.entity}\n",
        {},
        [None, None],
    ),
}


@pytest.mark.parametrize(("text", "known", "values"), ASKED_FOR.values(), ids=ASKED_FOR)
def test_a_key_of_run_wandb_that_is_asked_for_and_said_nowhere_is_null(write, text, known, values):
    rendered = render(write(text), injected=Injected(**known, null=True))
    loaded = OmegaConf.to_container(OmegaConf.create(rendered.files[0].text.decode()), resolve=True)
    assert [loaded["x"], loaded["y"]] == values


@pytest.mark.parametrize("text", ["run: {data: D:v1}\nx: ${art:data,path}\n", "x: ${run.wandb.project}\nart: ${art}\n"])
def test_what_is_not_asked_for_or_has_no_run_section_gets_no_null(write, text):
    rendered = render(write(text), injected=Injected(null=True))
    assert not any("wandb: {" in one.text.decode() for one in rendered.files)


# --- forms of a text
# ruff: noqa: E501 - each row is one line

TEXTS = {
    "byte order mark": ("\ufeffrun: {data: D:v1}\nx: ${art:data,path}\n", "x: /artifacts/data\n"),
    "windows lines": ("run: {data: D:v1}\r\nx: ${art:data,path}\r\ny: |\r\n  a ${art:data,path}\r\n  b\r\n", "y: |\r\n  a /artifacts/data\r\n  b\r\n"),
    "anchor and tag": ("run: {data: D:v1}\nx: &x !!str ${art:data,path}/y\nz: *x\n", "x: &x !!str /artifacts/data/y\nz: *x\n"),
    "anchor of a whole value": ("run: {data: D:v1}\nx: !!str &x '${art:data,pack_size}'\nz: *x\n", "x: &x 4096\nz: *x\n"),
    "folded": ("run: {data: D:v1}\nx: >-\n  ${art:data,path}\ny: 1\n", "x: /artifacts/data\ny: 1\n"),
    "folded text": ("run: {data: D:v1}\nx: >\n  a ${art:data,path}\n  b\ny: 1\n", 'x: "a /artifacts/data b\\n"\ny: 1\n'),
    "escaped": ("run: {data: D:v1}\nx: \\${a} ${art:data,path} ${oc.env:B}\n", "x: \\${a} /artifacts/data ${oc.env:B}\n"),
    "backslash": ("run: {data: D:v1}\nx: 'C:\\\\${art:data,version}\\${a}'\n", "x: \"C:\\\\v3\\\\${a}\"\n"),
    "in the name of another": ("run: {data: D:v1}\nx: ${b.${oc.env:K}.${art:data,version}}\n", "x: ${b.${oc.env:K}.v3}\n"),
    "in a flow list": ("run: {data: D:v1}\nx: ['${art:data,path}', \"${art:data,version}:1\"]\n", 'x: [/artifacts/data, "v3:1"]\n'),
    "non-ASCII": ("run: {data: D:v1}\nx: ${art:data,path}/日本  # é\n", 'x: "/artifacts/data/日本"  # é\n'),
    "document markers": ("%YAML 1.1\n---\nrun: {data: D:v1}\nx: ${art:data,path}\n...\n", "x: /artifacts/data\n...\n"),
    "shadowed by a merge": (
        "run: {data: D:v1}\nb: &b {p: '${art:data,path}/${.n}', n: 1}\nc:\n  <<: *b\n  n: 2\n",
        "b: &b {p: '/artifacts/data/${.n}', n: 1}\nc:\n  <<: *b\n  n: 2\n",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("before", "after"), TEXTS.values(), ids=TEXTS)
def test_only_the_scalar_changes_whatever_the_text_looks_like(write, before, after):
    found = render(write(before)).files[0].text.decode()
    assert found.endswith(after)
    assert found.startswith("\ufeff") == before.startswith("\ufeff")


def test_the_neighbours_of_a_config_are_linked_beside_the_resolved_one(write, tmp_path):
    write("{}", "vocabulary.json")
    rendered = render(write("run: {data: D:v1}\nx: ${art:data,path}\n"))
    assert (str(tmp_path / "resolved/vocabulary.json"), str(tmp_path / "vocabulary.json")) in rendered.links


def test_a_config_with_nothing_to_change_is_given_to_the_command_as_it_is(write):
    rendered = render(write("a: ${b}\nb: 1\n"))
    assert rendered.files == ()
    assert rendered.arguments == {}


def test_the_same_input_gives_the_same_bytes(write):
    path = write("run: {data: D:v1}\nx: ${art:data,path}\n")
    assert render(path) == render(path)


def test_a_metadata_value_that_looks_like_an_interpolation_arrives_as_that_text(write):
    path = write("run: {data: D:v1}\nx: ${art:data,evil}\ny: a ${art:data,evil}\nz: ${oc.decode:'${art:data,evil}'}\n")
    config = open_config(path)
    for value in ("${oc.env:HOME}", "${art:x}", "\\${a}", "${"):
        found = artifact("data", evil=value)
        text = config.render({"data": found}, directory="/nowhere", header=HEADER).files[0].text.decode()
        loaded = OmegaConf.create(text)
        assert loaded.x == value
        assert loaded.y == "a " + value


@pytest.mark.parametrize("value", ["C:\\", "\\\\", "a\\b\\"])
@pytest.mark.parametrize("before", ["", "a "])
def test_a_backslash_at_the_end_of_a_value_escapes_no_interpolation_behind_it(write, value, before):
    config = open_config(write(f"run: {{data: D:v1}}\nx: '{before}${{art:data,v}}${{b}}'\nb: 1\n"))
    found = config.render({"data": artifact("data", v=value)}, directory="/nowhere", header=HEADER)
    assert OmegaConf.create(found.files[0].text.decode()).x == f"{before}{value}1"


def test_the_first_lines_of_a_resolved_config_say_where_it_comes_from(write, tmp_path):
    write("run: {data: D:v1}\nx: ${art:data,path}\n", "a\nb.yaml")
    lines = render(tmp_path / "a\nb.yaml").files[0].text.decode().splitlines()
    assert lines[:3] == [
        f"# Resolved by nemotron-exec {__version__} from {tmp_path}/a\\nb.yaml",
        f"# at {HEADER.created_at}. Do not edit: the original is the source.",
        f"# run.data = {artifact('data').qualified_name}",
    ]
    assert lines[3].startswith("run: ")


@pytest.mark.parametrize("asked", [True, False])
def test_a_file_that_is_no_yaml_is_passed_through_and_the_log_says_why(write, asked):
    path = write("x:\n\ty: 1\n")
    argument = ConfigArgument(1, "", str(path), explicit=False)
    said = []
    messages = SimpleNamespace(debug=said.append) if asked else None
    config = read([argument], [], environ={}, run_wandb=Injected(), resolve="artifacts", messages=messages)
    assert config.render({}, directory="/nowhere", header=HEADER).files == ()
    assert said == [f"{path} is passed through as it is: the line is indented with a tab"] * asked


def test_a_config_that_no_word_names_changes_no_word(write):
    argument = ConfigArgument(-1, "", str(write("run: {data: D:v1}\nx: ${art:data,path}\n")), explicit=True)
    config = read([argument], [], environ={}, run_wandb=Injected(), resolve="artifacts")
    rendered = config.render({"data": artifact("data")}, directory="/nowhere", header=HEADER)
    assert (len(rendered.files), rendered.arguments, rendered.moved) == (1, {}, ())


def test_a_profile_fills_the_environment_of_a_config_that_has_a_run_section(write):
    profile = Injected(env={"container": "c", "none": {}, "more": {"n": 1}, "day": date(2026, 3, 11)})
    env = {"container": "c", "none": {}, "more": {"n": 1}, "day": "2026-03-11"}
    assert open_config(write("run: {}\n"), injected=profile).run == {"env": env}
    assert open_config(write("x: ${art}\n"), injected=profile).run == {}
    (override, *_) = profile_overrides(profile.env)
    assert (override.index, override.word, override.sign) == (-1, "run.env.container of env.toml", "++")


@pytest.mark.parametrize("explicit", [True, False])
def test_a_template_in_the_run_section_is_passed_through_unless_c_names_the_config(write, explicit):
    path = str(write("run: {a: '{{ x }}:v1', b: 'c:v1'}\nx: ${art:b}\n"))
    given = {"environ": {}, "run_wandb": Injected(), "resolve": "artifacts"}
    assert read([ConfigArgument(1, "", path, explicit=explicit)], [], **given).files == ((path,) if explicit else ())


#  config, override: the config then
WRITTEN = {
    ("run: {x: 1}\n", "run.new.x=5"): "run: {new: {x: 5}, x: 1}\n",
    ("w: &w {project: p}\nrun: {wandb: *w}\n", "run.wandb={project: q}"): (
        "w: &w {project: p}\nrun: {wandb: {project: q, entity: my-team}}\n"
    ),
    ("w: &w {p: '${art:data}'}\nrun: {data: D:v1, wandb: {project: p, entity: e}, k: *w}\n", "run.k={q: 1}"): (
        "w: &w {p: /artifacts/data}\nrun: {data: D:v1, wandb: {project: p, entity: e}, k: {q: 1}}\n"
    ),
}


@pytest.mark.parametrize(("text", "word"), WRITTEN)
def test_what_an_override_of_run_leaves_of_the_text(write, text, word):
    injected = Injected() if "new" in word else None
    assert body(render(write(text), word, injected=injected)) == WRITTEN[text, word]


def test_a_text_that_is_no_unicode_is_one_error():
    document = Document("cfg.yaml", "x: 1\n")
    assert encode_text(document, "x: é\n") == b"x: \xc3\xa9\n"
    with pytest.raises(LaunchError, match="to write the resolved config"):
        encode_text(document, "x: \ud800\n")


def test_no_secret_of_the_environment_is_written(write, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "s3cret")
    text = "run: {data: D:v1}\nk: ${oc.env:WANDB_API_KEY}\nj: x${k}\nx: ${art:data,path}/${oc.env:WANDB_API_KEY}\n"
    for resolve in ("artifacts", "all"):
        config = read(
            [ConfigArgument(1, "", str(write(text)), explicit=True)],
            [],
            environ={"WANDB_API_KEY": "s3cret"},
            run_wandb=Injected(),
            resolve=resolve,  # type: ignore[arg-type]
        )
        rendered = config.render({"data": artifact("data")}, directory="/nowhere", header=HEADER)
        assert "s3cret" not in rendered.files[0].text.decode()


def test_the_directory_that_the_config_saves_to_is_found_overrides_honoured(write):
    path = write("checkpoint: {save: /a/b}\n")
    assert open_config(path).save_directory == "/a/b"
    assert open_config(path, "checkpoint.save=/c").save_directory == "/c"
    assert open_config(path, "checkpoint.save=${x}").save_directory is None
    assert open_config(write("checkpointing: {checkpoint_dir: 'r/x'}\n")).save_directory == "r/x"


def test_the_save_key_of_every_framework_is_known(write):
    for framework in FRAMEWORKS:
        if framework.save_key is not None:
            section, key = framework.save_key
            assert open_config(write(f"{section}: {{{key}: /a/{key}}}\n")).save_directory == f"/a/{key}", framework.name


SAVED_BY = {
    "as two words": (["--num-layers", "2", "--save", "out/a"], "out/a"),
    "as one word": (["--num-layers=2", "--save=out/a"], "out/a"),
    "the last one, as argparse has it": (["--save", "x", "--save-interval", "9", "--save=out/a"], "out/a"),
    "in no command of Megatron-LM": (["--save", "figure.png"], None),
    "a flag": (["--num-layers", "2", "--save", "--lr", "1"], None),
    "at the end": (["--num-layers", "2", "--save"], None),
    "what only the job knows": (["--num-layers", "2", "--save", "${art:data,path}/x"], None),
    "another option": (["--num-layers", "2", "--save-interval", "20"], None),
}


@pytest.mark.parametrize(("words", "directory"), SAVED_BY.values(), ids=SAVED_BY)
def test_the_save_directory_may_be_an_option_of_the_command(words, directory):
    assert saved_by(words) == directory


def test_a_config_that_says_where_it_saves_wins_over_an_option(write):
    words = ["python", "train.py", "cfg.yaml", "--num-layers", "2", "--save", "/of-option"]
    for text, directory in (("run: {d: 'D:v1'}\n", "/of-option"), ("checkpoint: {save: /of-config}\n", "/of-config")):
        argument = ConfigArgument(2, "", write(text), explicit=True)
        found = read([argument], [], environ={}, run_wandb=Injected(), resolve="artifacts", words=words, start=2)
        assert found.save_directory == directory


def test_the_start_line_names_every_framework():
    line = describe({})
    assert all(f"{framework.name} for " in line for framework in FRAMEWORKS), line


# --- artifacts in the overrides themselves


@pytest.mark.parametrize("value", [*AWKWARD, 7, 1e-5, True, None, [1, "a b"], "a,b", "a=b", "/p q", "[x]", "x}"])
def test_a_value_filled_into_an_override_is_read_as_itself(write, value):
    path = write("run: {data: D:v1}\nx: 1\n")
    config = open_config(path, "x=${art:data,v}")
    word = config.render({"data": artifact("data", v=value)}, directory="/nowhere", header=HEADER).arguments[2]
    (parsed,) = OverridesParser.create().parse_overrides([word])
    read_back = OmegaConf.create({"x": parsed.value()}).x
    assert repr(read_back) == repr(value)


def test_a_secret_is_no_artifact_reference(write):
    path = write("run: {data: '${oc.env:MY_TOKEN}'}\nx: ${art:data,path}\n")
    with pytest.raises(LaunchError) as caught:
        read(
            [ConfigArgument(1, "", str(path), explicit=True)],
            [],
            environ={"MY_TOKEN": "s3cret:v1"},
            run_wandb=Injected(),
            resolve="all",
        )
    assert "MY_TOKEN" in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("x=${art:data,path}/z", "x=/artifacts/data/z"),
        ("+x=${art:data,path}", "+x=/artifacts/data"),
        ("x=${art:data,odd}/z", 'x="a b,c/z"'),
        ("x='${art:data,odd}/z'", "x='a b,c/z'"),
        ("x=[${art:data,path},1]", "x=[/artifacts/data,1]"),
        ("x=${art:data,pack_size}0", 'x="40960"'),
        ("x=@${art:data,path}", "x=@/artifacts/data"),
        ("x=${oc.env:A}/${art:data,version}", "x=${oc.env:A}/v3"),
        ("x=${art:${which},path}", "x=/artifacts/data"),
    ],
)
def test_artifacts_in_overrides_are_filled_in(write, before, after):
    config = open_config(write("run: {data: D:v1}\nx: 1\nwhich: data\n"), before)
    rendered = config.render({"data": artifact("data", odd="a b,c")}, directory="/nowhere", header=HEADER)
    assert rendered.arguments[2] == after
