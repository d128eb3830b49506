"""Where the primary config of a Hydra program lies, and where its new directory goes into the command."""

from __future__ import annotations

import shlex

import pytest

from nemotron_exec.command.read import read

TEXT = "run: {data: 'blend:v1'}\npath: ${art:data,path}\n"
READABLE = "import hydra\n@hydra.main(version_base=None, config_path='conf', config_name='config')\ndef m(c): ...\n"
COMPOSES = "import hydra\nhydra.initialize('conf')\nhydra.compose('config')\n"
COMPUTED = "import hydra\n@hydra.main(version_base=None, config_path=d(), config_name='config')\ndef m(c): ...\n"
NAMELESS = "import hydra\n@hydra.main(version_base=None, config_path='conf', config_name=n())\ndef m(c): ...\n"
NOTHING = "import hydra\n@hydra.main(version_base=None, config_path=d(), config_name=n())\ndef m(c): ...\n"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("conf/config.yaml", "conf/exp/big.yaml", "other/config.yaml", "pkg/conf/config.yaml", "config.yaml",
                 "venv/lib/python3/site-packages/site/conf/config.yaml"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(TEXT)
    for name, text in (("app", READABLE), ("composes", COMPOSES), ("computed", COMPUTED), ("nameless", NAMELESS),
                       ("nothing", NOTHING), ("plain", "print(1)\n")):  # fmt: skip
        (tmp_path / f"{name}.py").write_text(text)
    return tmp_path


def shown(here, command, explicit=(), environ=None):
    """Of each config: index, prefix, path, index of the directory's word, directory, tentative."""
    found = read(shlex.split(command), explicit, environ or {}).configs
    short = str(here) + "/"
    return [
        (
            one.index,
            one.prefix,
            one.path.replace(short, ""),
            one.hydra,
            one.directory.replace(short, "").replace(str(here), "."),
            one.tentative,
        )
        for one in found
    ]


FOUND = {
    "python app.py": (1, "app.py", "conf/config.yaml", -1, "conf", True),
    "python app.py x=1": (1, "app.py", "conf/config.yaml", -1, "conf", True),
    "python app.py -cn exp/big": (3, "exp/big", "conf/exp/big.yaml", -1, "conf", False),
    "python app.py -cn exp/big.yaml": (3, "exp/big.yaml", "conf/exp/big.yaml", -1, "conf", False),
    "python app.py --config-name=exp/big": (2, "--config-name=exp/big", "conf/exp/big.yaml", -1, "conf", False),
    "python app.py -cp other": (3, "", "other/config.yaml", 3, "other", False),
    "python app.py --config-path=other": (2, "--config-path=", "other/config.yaml", 2, "other", False),
    "python app.py -cp {here}/other": (3, "", "other/config.yaml", 3, "other", False),
    "python app.py -cp pkg://pkg.conf": (3, "", "pkg/conf/config.yaml", 3, "pkg/conf", False),
    "python app.py -cd other": (1, "app.py", "conf/config.yaml", -1, "conf", True),
    "python app.py -cp gone -cd other": (5, "", "other/config.yaml", 5, "other", False),
    "python app.py --config-dir=other -cn config -cp gone": (
        2,
        "--config-dir=",
        "other/config.yaml",
        2,
        "other",
        False,
    ),
    "python composes.py": (-1, "", "conf/config.yaml", -1, "conf", True),
    "python composes.py -cn exp/big -cp other": (-1, "", "conf/config.yaml", -1, "conf", True),
    "python computed.py -cp other": (3, "", "other/config.yaml", 3, "other", False),
    "python nameless.py -cn config": (3, "config", "conf/config.yaml", -1, "conf", False),
    "python plain.py -cp other": (3, "", "other/config.yaml", 3, "other", False),
    "python plain.py -cn config": (3, "config", "config.yaml", -1, ".", False),
    "train -cn config": (2, "config", "config.yaml", -1, ".", False),
    "train -cp other": (2, "", "other/config.yaml", 2, "other", False),
    "train -cp pkg://pkg.conf": (2, "", "pkg/conf/config.yaml", 2, "pkg/conf", False),
    "{here}/venv/bin/python app.py -cp pkg://site.conf": (
        3,
        "",
        "venv/lib/python3/site-packages/site/conf/config.yaml",
        3,
        "venv/lib/python3/site-packages/site/conf",
        False,
    ),
    "python computed.py": None,
    "python nameless.py": None,
    "python nothing.py": None,
    "python plain.py": None,
    "python plain.py -cd other": None,
    "python app.py -cn": (1, "app.py", "conf/config.yaml", -1, "conf", True),
    "python app.py -cn gone": None,
    "python app.py -cp pkg://none.conf": None,
}


@pytest.mark.parametrize("command", FOUND)
def test_the_primary_config(here, command):
    expected = FOUND[command]
    assert shown(here, command.format(here=here)) == ([] if expected is None else [expected])


@pytest.mark.parametrize("command", ["python app.py", "python composes.py"])
def test_another_module_in_the_place_of_the_script_hides_its_decorator(here, command):
    assert shown(here, command, environ={"HYDRA_MAIN_MODULE": "x"}) == []


#  command, file of -c: what it is to the program
EXPLICIT = {
    ("python app.py", "conf/config.yaml"): (1, "app.py", "conf/config.yaml", -1, "conf", False),
    ("python app.py", "{here}/conf/../conf/config.yaml"): (1, "app.py", "conf/config.yaml", -1, "conf", False),
    ("python app.py -cp other", "other/config.yaml"): (3, "", "other/config.yaml", 3, "other", False),
    ("python app.py -cp other", "conf/config.yaml"): (-1, "", "conf/config.yaml", None, "", False),
    ("python app.py", "other/config.yaml"): (-1, "", "other/config.yaml", None, "", False),
    ("python app.py -cd other", "other/config.yaml"): (3, "", "other/config.yaml", 3, "other", False),
    ("python composes.py", "conf/config.yaml"): (-1, "", "conf/config.yaml", -1, "conf", False),
    ("python computed.py", "other/config.yaml"): (1, "computed.py", "{here}/other/config.yaml", -1, "other", False),
    ("python computed.py", "conf/exp/big.yaml"): (-1, "", "conf/exp/big.yaml", None, "", False),
    ("python computed.py -cn exp/big", "conf/exp/big.yaml"): (
        3,
        "exp/big",
        "{here}/conf/exp/big.yaml",
        -1,
        "conf",
        False,
    ),
    ("python computed.py -cp gone", "conf/config.yaml"): (-1, "", "conf/config.yaml", None, "", False),
    ("python nameless.py", "conf/exp/big.yaml"): (1, "nameless.py", "{here}/conf/exp/big.yaml", -1, "conf", False),
    ("python nameless.py", "other/config.yaml"): (-1, "", "other/config.yaml", None, "", False),
    ("python nothing.py", "conf/exp/big.yaml"): (1, "nothing.py", "{here}/conf/exp/big.yaml", -1, "conf/exp", False),
    ("python plain.py", "conf/config.yaml"): (-1, "", "conf/config.yaml", None, "", False),
    ("python plain.py -cn config", "config.yaml"): (3, "config", "config.yaml", -1, ".", False),
    ("python plain.py -cd conf", "conf/config.yaml"): (-1, "", "conf/config.yaml", None, "", False),
    ("train -cp other", "other/config.yaml"): (2, "", "other/config.yaml", 2, "other", False),
    ("python app.py conf/config.yaml", "conf/config.yaml"): (2, "", "conf/config.yaml", None, "", False),
    ("python plain.py x.cfg", "x.cfg"): (2, "", "x.cfg", None, "", False),
    ("python plain.py --config=x.cfg y", "x.cfg"): (2, "--config=", "x.cfg", None, "", False),
    ("python plain.py y=x.cfg", "x.cfg"): (-1, "", "x.cfg", None, "", False),
    ("conf/config.yaml x", "conf/config.yaml"): (0, "", "conf/config.yaml", None, "", False),
}


@pytest.mark.parametrize(("command", "file"), EXPLICIT)
def test_a_config_that_c_names(here, command, file):
    index, prefix, path, *rest = EXPLICIT[command, file]
    found = shown(here, command, [file.format(here=here)])
    assert found == [(index, prefix, path.format(here=here).replace(f"{here}/", ""), *rest)]


def test_where_c_names_two_configs_only_the_one_that_no_word_names_is_that_of_the_program(here):
    found = shown(here, "python app.py other/config.yaml", ["other/config.yaml", "conf/config.yaml"])
    assert found == [
        (2, "", "other/config.yaml", None, "", False),
        (1, "app.py", "conf/config.yaml", -1, "conf", False),
    ]
    found = shown(here, "python app.py conf/config.yaml", ["conf/config.yaml", "other/config.yaml"])
    assert found == [(2, "", "conf/config.yaml", None, "", False), (-1, "", "other/config.yaml", None, "", False)]


def test_c_needs_no_working_directory(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    (found,) = read(["prog", "x", "c.yaml"], ["c.yaml"], {}).configs
    assert (found.index, found.path) == (2, "c.yaml")
