"""Hydra programs that name their config in the script: the real launcher, real hydra-core, a real store.

test_hydra.py tests the files that are written for Hydra. This file tests how the launcher finds the config, and what
the program gets.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from nemotron_exec.command import read as commands
from nemotron_exec.command.hydra_main import HydraMain, read
from nemotron_exec.command_scan import may_need_resolving
from nemotron_exec.program_file import script_of_module

DATA = Path(__file__).resolve().parents[1] / "data/hydra"
BODY = textwrap.dedent(
    """
    import json, sys
    def main(config):
        from omegaconf import OmegaConf
        sys.stdout.write(json.dumps(OmegaConf.to_container(config, resolve=True)) + "\\n")
    """
)
RUN = '\nif __name__ == "__main__":\n    main()\n'


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Artifacts D:v1, E:v9, M:v2."""
    root = tmp_path / "store"
    for name, version in (("D", 1), ("M", 2), ("E", 9)):
        directory = root / name / f"v{version}"
        directory.mkdir(parents=True)
        (tmp_path / name).mkdir()
        fields = {"path": str(tmp_path / name), "type": "model", "iteration": 7, "metadata": {"pack_size": 8}}
        more = {"name": name, "version": version, "created_at": "", "producer": "", "inputs": [], "used_artifacts": []}
        (directory / "manifest.json").write_text(json.dumps({**fields, **more}))
        (directory / "metadata.json").write_text(json.dumps(fields))
        (root / name / "latest").write_text(f"v{version}")
    monkeypatch.setenv("NEMOTRON_EXEC_STORE", str(root))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def project(store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(DATA, store / "project")
    monkeypatch.chdir(store / "project")
    return store / "project"


def launch(*words: object, env: dict[str, str] | None = None) -> list[dict[str, object]]:
    """Launch the program; returns the JSON object that each rank prints."""
    import os

    done = subprocess.run(
        [sys.executable, "-m", "nemotron_exec", *map(str, words), f"hydra.run.dir={os.environ['TMPDIR']}/hydra"],
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    # Two ranks may write their line ends after both of their objects.
    found, rest = [], done.stdout.strip()
    while rest:
        value, end = json.JSONDecoder().raw_decode(rest)
        found.append(value)
        rest = rest[end:].strip()
    return found


def expected(store: Path, data: str = "D", seed: int = 1) -> dict[str, object]:
    path = f"{store}/{data}"
    return {
        "run": {"data": {"D": "D:v1", "E": "E:v9"}[data], "model": "M:v2", "which": "data"},
        "seed": seed,
        "out": f"{path}/out",
        "name": "small",
        "model": {"name": "small", "checkpoint": f"{store}/M", "step": 7},
        "corpus": {"path": f"{path}/blend.json", "pack": 16, "same": f"{path}/blend.json", "seed": seed},
    }


def test_a_config_that_only_the_decorator_names(project: Path, store: Path) -> None:
    assert launch(sys.executable, "program.py") == [expected(store)]


def test_overrides_count_as_where_the_command_names_it(project: Path, store: Path) -> None:
    found = launch(sys.executable, "program.py", "seed=5", "run.data=E:v9", "+extra=${art:data,pack_size}")
    assert found == [{**expected(store, "E", 5), "extra": 8}]
    (found,) = launch(sys.executable, "program.py", "model=large")
    assert found["model"] == {"name": "large", "size": 7}


def test_from_another_directory_it_counts_from_the_script(project: Path, store: Path, monkeypatch) -> None:
    monkeypatch.chdir(store)
    assert launch(sys.executable, "project/program.py") == [expected(store)]
    assert launch(sys.executable, "project/program.py", "--config-path", "conf") == [expected(store)]


def package(project: Path) -> None:
    (project / "pkg").mkdir()
    shutil.move(str(project / "conf"), project / "pkg")
    shutil.move(str(project / "program.py"), project / "pkg")
    (project / "pkg/__init__.py").touch()


def test_as_a_module(project: Path, store: Path, monkeypatch) -> None:
    package(project)
    assert launch(sys.executable, "-m", "pkg.program") == [expected(store)]
    assert launch(sys.executable, "-m", "pkg.program", "-cp", "conf", "seed=2") == [expected(store, seed=2)]
    monkeypatch.chdir(store)
    assert launch(sys.executable, "-m", "pkg.program", env={"PYTHONPATH": str(project)}) == [expected(store)]


@pytest.mark.torch
@pytest.mark.parametrize(
    "words",
    [
        pytest.param(("program.py",), marks=pytest.mark.ci),
        ("program.py", "-cp", "conf"),
        pytest.param(("-m", "pkg.program"), marks=pytest.mark.ci),
    ],
)
def test_under_torchrun(project: Path, store: Path, words: tuple[str, ...]) -> None:
    if "-m" in words:
        package(project)
    torchrun = (sys.executable, "-m", "torch.distributed.run")
    found = launch(*torchrun, "--standalone", "--nproc-per-node", "2", *words)
    assert found == [expected(store)] * 2


FORMS = {
    "by position": '@hydra.main("conf", "config", None)',
    "an alias": '@h.main(config_path="conf", config_name="config.yaml", version_base="1.3")',
    "the function": '@entry(config_path="./conf", config_name="config", version_base=None)',
    "names of constants": "@hydra.main(config_path=CONF, config_name=NAME, version_base=None)",
    "called, not decorating": "",
    "the script's directory, by a version": '@hydra.main(config_name="config", version_base="1.1")',
    "a directory above": '@hydra.main(config_path="../project/conf", config_name="config", version_base=None)',
    "a package": '@hydra.main(config_path="pkg://conf", config_name="config", version_base=None)',
    "an absolute path": '@hydra.main(config_path="{here}/conf", config_name="config", version_base=None)',
}


QUICK = ("names of constants", "called, not decorating", "a directory above")


@pytest.mark.parametrize(
    "form",
    [pytest.param(form, id=name, marks=() if name in QUICK else pytest.mark.ci) for name, form in FORMS.items()],
)
def test_every_way_to_say_it(project: Path, store: Path, form: str) -> None:
    imports = 'import hydra\nimport hydra as h\nfrom hydra import main as entry\nCONF = "conf"\nNAME: str = "config"\n'
    end = RUN if form else '\nhydra.main(config_path="conf", config_name="config", version_base=None)(main)()\n'
    body = BODY.replace("def main", form.format(here=project) + "\ndef main")
    (project / "program.py").write_text(imports + body + end)
    if "pkg://" in form:
        (project / "conf/__init__.py").touch()
    if '"1.1"' in form:
        for path in (project / "conf").iterdir():
            shutil.move(str(path), project)
    assert launch(sys.executable, "program.py") == [expected(store)]


def test_no_directory_but_that_of_the_command(project: Path, store: Path) -> None:
    (project / "program.py").write_text((project / "program.py").read_text().replace('"conf"', "None"))
    assert launch(sys.executable, "program.py", "--config-dir", "conf") == [expected(store)]
    assert launch(sys.executable, "program.py", "-cd=conf", "run.data=E:v9") == [expected(store, "E")]


def test_a_name_on_the_command_line_replaces_the_decorators(project: Path, store: Path) -> None:
    shutil.copy(project / "conf/config.yaml", project / "conf/other.yaml")
    (project / "conf/config.yaml").write_text("nothing: of ours\n")
    assert launch(sys.executable, "program.py", "-cn", "other", "seed=3") == [expected(store, seed=3)]


def test_a_name_in_a_folder(project: Path, store: Path) -> None:
    (project / "conf/exp").mkdir()
    text = "# @package _global_\ndefaults:\n  - /model: small\nrun: {model: M:v2}\nout: ${art:model,path}\n"
    (project / "conf/exp/one.yaml").write_text(text)
    (found,) = launch(sys.executable, "program.py", "--config-name", "exp/one")
    assert (found["out"], found["model"]) == (f"{store}/M", expected(store)["model"])


def test_a_group_keeps_its_package_header(project: Path, store: Path) -> None:
    (project / "conf/experiment").mkdir()
    text = "# @package _global_\n\ndefaults:\n  - override /model: large\nseed: 9\nextra: ${art:model,path}\n"
    (project / "conf/experiment/big.yaml").write_text(text)
    (found,) = launch(sys.executable, "program.py", "+experiment=big")
    assert (found["seed"], found["extra"], found["name"]) == (9, f"{store}/M", "large")


def test_run_of_a_base_config(project: Path, store: Path) -> None:
    conf = project / "conf"
    (conf / "base.yaml").write_text("run:\n  data: D:v1\n  model: M:v2\n  which: data\n")
    text = (conf / "config.yaml").read_text()
    (conf / "config.yaml").write_text(
        text.replace("run:\n  data: D:v1\n  model: M:v2\n  which: data\n", "").replace(
            "- _self_\n", "- base\n  - _self_\n"
        )
    )
    assert launch(sys.executable, "program.py") == [expected(store)]


def test_an_experiment_with_another_version_is_an_error_until_the_command_says_which(
    project: Path, store: Path, nemotron_exec
) -> None:
    (project / "conf/experiment").mkdir()
    (project / "conf/experiment/e.yaml").write_text("# @package _global_\nrun:\n  data: E:v9\nw: ${run.data}\n")
    assert launch(sys.executable, "program.py") == [expected(store)]
    done = nemotron_exec(sys.executable, "program.py", "+experiment=e", cwd=project)
    assert done.returncode == 125
    assert f"{project}/conf/config.yaml:9" in done.stderr
    assert f"E:v9 in {project}/conf/experiment/e.yaml:3" in done.stderr
    found = launch(sys.executable, "program.py", "+experiment=e", "run.data=E:v9")
    assert found == [{**expected(store, "E"), "w": "E:v9"}]
    (found,) = launch(sys.executable, "program.py", "+experiment=e", "run.data=D:v1")
    assert (found["w"], found["out"]) == ("D:v1", f"{store}/D/out")


@pytest.mark.parametrize("by", ["the command", "the defaults list"])
def test_a_group_that_goes_to_the_top_without_saying_so_itself_counts_as_well(
    project: Path, store: Path, nemotron_exec, by: str
) -> None:
    conf = project / "conf"
    (conf / "experiment").mkdir()
    (conf / "experiment/e.yaml").write_text("run:\n  data: E:v9\n")
    words = ["+experiment@_global_=e"]
    if by == "the defaults list":
        text = (conf / "config.yaml").read_text()
        (conf / "config.yaml").write_text(text.replace("- _self_\n", "- _self_\n  - experiment@_global_: e\n"))
        words = []
    done = nemotron_exec(sys.executable, "program.py", *words, cwd=project)
    assert done.returncode == 125
    assert f"E:v9 in {conf}/experiment/e.yaml:2" in done.stderr
    assert launch(sys.executable, "program.py", *words, "run.data=E:v9") == [expected(store, "E")]


OUT_OF_FILE = "import os\n" + (DATA / "program.py").read_text().replace(
    '"conf"', 'os.path.join(os.path.dirname(os.path.abspath(__file__)), "conf")'
)


def test_a_decorator_that_computes_its_directory_needs_the_config_named(project: Path, store: Path) -> None:
    (project / "program.py").write_text(OUT_OF_FILE)
    words = ("-c", "conf/config.yaml", sys.executable, "program.py")
    assert launch(*words) == [expected(store)]
    assert launch(*words, "run.data=E:v9", "seed=4") == [expected(store, "E", 4)]


def test_a_decorator_in_another_module_needs_the_config_named(project: Path, store: Path) -> None:
    # The command does not show that it is a Hydra program, so `art` is registered in the job.
    package(project)
    (project / "pkg/conf/__init__.py").touch()
    (project / "train.py").write_text("from pkg.program import main\nmain()\n")
    assert launch("-c", "pkg/conf/config.yaml", sys.executable, "train.py") == [expected(store)]


def test_compose_in_a_script(project: Path, store: Path) -> None:
    (project / "program.py").write_text(
        "import sys\nfrom hydra import compose, initialize\n"
        + BODY
        + 'with initialize(version_base=None, config_path="conf"):\n'
        + '    main(compose(config_name="config", overrides=sys.argv[1:-1]))\n'
    )
    assert launch(sys.executable, "program.py") == [expected(store)]
    assert launch(sys.executable, "program.py", "run.data=E:v9", "seed=4") == [expected(store, "E", 4)]


def test_a_hydra_program_without_anything_of_ours_starts_as_it_is(project: Path, store: Path) -> None:
    shutil.rmtree(project / "conf")
    (project / "conf").mkdir()
    (project / "conf/config.yaml").write_text("defaults:\n  - _self_\nhydra:\n  run:\n    dir: .\na: 1\nb: ${a}\n")
    text = (project / "program.py").read_text().replace("OmegaConf.to_container(config, resolve=True)", "sys.argv[1:]")
    (project / "program.py").write_text(text.replace("import json", "import json, sys"))
    (found,) = launch(sys.executable, "program.py", "a=2")
    assert found == ["a=2", f"hydra.run.dir={store}/hydra"]


SAID = {
    "no version": ("import hydra\n@hydra.main(config_name='c')\ndef f(c): 0\n", HydraMain(".", "c")),
    "no path": ("import hydra\n@hydra.main(config_name='c', version_base=None)\ndef f(c): 0\n", HydraMain(None, "c")),
    "NeMo": (
        "from nemo.core.config import hydra_runner\n@hydra_runner(config_path='conf', config_name='c')\ndef f(c): 0\n",
        HydraMain("conf", "c"),
    ),
    "NeMo, no path": (
        "from nemo.core.config import hydra_runner as r\n@r(config_name='c')\ndef f(c): 0\n",
        HydraMain(".", "c"),
    ),
    "a call": (
        "import hydra, os\n@hydra.main(config_path=os.getcwd(), config_name='c')\ndef f(c): 0\n",
        HydraMain("\0", "c", path_known=False),
    ),
    "a name set twice": (
        "import hydra\nN = 'a'\nN = 'b'\n@hydra.main(config_path='x', config_name=N)\ndef f(c): 0\n",
        HydraMain("x", "\0", name_known=False),
    ),
    "two programs": (
        "import hydra\n@hydra.main('a', 'b')\ndef f(c): 0\n@hydra.main('a', 'c')\ndef g(c): 0\n",
        HydraMain(None, None, path_known=False, name_known=False),
    ),
    "compose": (
        "import hydra\nwith hydra.initialize('conf'):\n    hydra.compose('c')\n",
        HydraMain("conf", "c", takes_arguments=False),
    ),
    "another main": ("import hydrant\n@hydrant.main('a', 'b')\ndef f(c): 0\n", None),
    "no Python": ("hydra (", None),
    "nested too deep": ("hydra = " + "(" * 5000, None),
    "a null byte": ("hydra\0", None),
}


@pytest.mark.parametrize(("source", "said"), SAID.values(), ids=SAID)
def test_what_a_script_says(tmp_path: Path, source: str, said: HydraMain | None) -> None:
    (tmp_path / "x.py").write_text(source)
    assert read(str(tmp_path / "x.py")) == said


def test_a_module_is_found_where_the_interpreter_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    site = tmp_path / "venv/lib/python3.12/site-packages"
    for path in (site / "installed/train.py", tmp_path / "src/edited/train/__main__.py", tmp_path / "here.py"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (site / "edited.pth").write_text(f"# comment\nimport nothing\n{tmp_path}/src\n")
    python = [str(tmp_path / "venv/bin/python"), "-m"]
    assert script_of_module("installed.train", python, {}) == str(site / "installed/train.py")
    assert script_of_module("edited.train", python, {}) == str(tmp_path / "src/edited/train/__main__.py")
    assert script_of_module("here", python, {}) == "here.py"
    assert script_of_module("installed.other", python, {}) is None
    assert script_of_module("../x", python, {}) is None


def test_only_a_script_that_mentions_hydra_takes_the_slow_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plain.py").write_text("print(1)\n")
    (tmp_path / "hydra_program.py").write_text("import hydra\n")
    for words, expected in {
        ("python", "plain.py"): False,
        ("python", "missing.py"): False,
        ("python", "hydra_program.py"): True,
        ("./hydra_program.py", "a=1"): True,
        ("python", "-m", "plain"): False,
        ("python", "-m", "hydra_program"): True,
        ("python", "-mhydra_program"): True,
        ("torchrun", "--nproc-per-node", "2", "-m", "hydra_program"): True,
        ("torchrun", "-m", "--nproc-per-node=2", "hydra_program"): True,
        ("python", "-m", "torch.distributed.run", "plain.py"): False,
        ("python", "-m", "torch.distributed.run", "-m", "hydra_program"): True,
    }.items():
        assert may_need_resolving(words, {"PATH": "/bin"}, lambda: str(tmp_path)) is expected, words
        assert commands.read(words).configs == ()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], {"pack_size": 8}),
        (["c={x: 4}"], {"x": 4}),
        (["~c", "+c={x: 4}"], {"x": 4}),
        (["+e=1"], {"pack_size": 8}),
    ],
)
def test_a_mapping_of_the_command_replaces_an_artifacts_mapping(
    project: Path, words: list[str], expected: dict[str, object]
) -> None:
    (project / "one").mkdir()
    (project / "one/config.yaml").write_text("run: {data: 'D:v1'}\nc: ${art:data,metadata}\n")
    decorated = '\nimport hydra\nmain = hydra.main(version_base=None, config_path="one", config_name="config")(main)\n'
    (project / "one.py").write_text(BODY + decorated + RUN)
    (result,) = launch(sys.executable, "one.py", *words)
    assert result["c"] == expected
