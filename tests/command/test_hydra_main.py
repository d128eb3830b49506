"""What a script gives to Hydra, read from its text."""

from __future__ import annotations

import pytest

from nemotron_exec.command import hydra_main
from nemotron_exec.command.hydra_main import HydraMain, read

UNKNOWN = "\0"


def main(text):
    return f"import hydra\n@hydra.main({text})\ndef main(c): ...\n"


#  script: path, name, whether each is known, whether Hydra reads the command line
SCRIPTS = {
    main("config_path='conf', config_name='a', version_base=None"): HydraMain("conf", "a"),
    main("'conf', 'a', None"): HydraMain("conf", "a"),
    main("'conf', 'a', '1.1'"): HydraMain("conf", "a"),
    main("config_name='a'"): HydraMain(".", "a"),
    main("config_name='a', version_base='1.0'"): HydraMain(".", "a"),
    main("config_name='a', version_base='1.1'"): HydraMain(".", "a"),
    main("config_name='a', version_base='1.2'"): HydraMain(None, "a"),
    main("config_name='a', version_base='1.10'"): HydraMain(None, "a"),
    main("config_name='a', version_base='2.0'"): HydraMain(None, "a"),
    main("config_name='a', version_base='1'"): HydraMain(None, "a"),
    main("config_name='a', version_base=None"): HydraMain(None, "a"),
    main("config_path=None, config_name='a'"): HydraMain(None, "a"),
    main("version_base=None"): HydraMain(None, None),
    main("config_path=here(), config_name='a'"): HydraMain(UNKNOWN, "a", path_known=False),
    main("config_path='conf', config_name=name"): HydraMain("conf", UNKNOWN, name_known=False),
    main("config_path='conf', config_name=3"): HydraMain("conf", UNKNOWN, name_known=False),
    main("*words"): HydraMain(UNKNOWN, UNKNOWN, path_known=False, name_known=False),
    main("**words"): HydraMain(UNKNOWN, UNKNOWN, path_known=False, name_known=False),
    main("'conf', **words"): HydraMain(UNKNOWN, UNKNOWN, path_known=False, name_known=False),
    "NAME = 'a'\n" + main("config_path='conf', config_name=NAME"): HydraMain("conf", "a"),
    "NAME: str = 'a'\n" + main("config_path='conf', config_name=NAME"): HydraMain("conf", "a"),
    "NAME: str\n" + main("config_path='conf', config_name=NAME"): HydraMain("conf", UNKNOWN, name_known=False),
    "A = B = 'a'\n" + main("config_path='conf', config_name=B"): HydraMain("conf", "a"),
    "A, B = 'a', 'b'\n" + main("config_path='conf', config_name=B"): HydraMain("conf", UNKNOWN, name_known=False),
    "A = 'a'\nA = 'b'\n" + main("config_path='conf', config_name=A"): HydraMain("conf", UNKNOWN, name_known=False),
    "if x:\n  A = 'a'\n" + main("config_path='conf', config_name=A"): HydraMain("conf", UNKNOWN, name_known=False),
    "A = 'a'\ndef f():\n  A = 1\n" + main("'conf', A"): HydraMain("conf", UNKNOWN, name_known=False),
    "A = x.y = 'a'\n" + main("'conf', A"): HydraMain("conf", "a"),
    "A = None\n" + main("A, 'a'"): HydraMain(None, "a"),
    "A = f()\n" + main("A, 'a'"): HydraMain(UNKNOWN, "a", path_known=False),
    "import hydra as h\n@h.main('conf', 'a')\ndef m(c): ...\n": HydraMain("conf", "a"),
    "import hydra.utils\n@hydra.main('conf', 'a')\ndef m(c): ...\n": HydraMain("conf", "a"),
    "import hydra.utils as h  # no main in it\n@h.main('conf', 'a')\ndef m(c): ...\n": None,
    "import os, hydra\n@hydra.main('conf', 'a')\ndef m(c): ...\n": HydraMain("conf", "a"),
    "from hydra import main\n@main('conf', 'a')\ndef m(c): ...\n": HydraMain("conf", "a"),
    "from hydra import utils, main as m\n@m('conf', 'a')\ndef f(c): ...\n": HydraMain("conf", "a"),
    "from hydra.main import main\n@main('conf', 'a')\ndef m(c): ...\n": HydraMain("conf", "a"),
    "from hydrax import main\n@main('conf', 'a')\ndef m(c): ...\n": None,
    "from . import main  # hydra\n@main('conf', 'a')\ndef m(c): ...\n": None,
    "from nemo.core.config import hydra_runner\n@hydra_runner('conf', 'a')\ndef m(c): ...\n": HydraMain("conf", "a"),
    "from x import hydra_runner as r\n@r(config_name='a')\ndef m(c): ...\n": HydraMain(".", "a"),
    "from x import hydra_runner as r\n@r(config_name='a', version_base=None)\ndef m(c): ...\n": HydraMain(".", "a"),
    "from x import hydra_runner as r\n@r('conf', 'a', S)\ndef m(c): ...\n": HydraMain("conf", "a"),
    "import hydra\nhydra.main(config_path='conf', config_name='a')(f)()\n": HydraMain("conf", "a"),
    main("'conf', 'a'") + "hydra.main('conf', 'a')\n": HydraMain("conf", "a"),
    main("'conf', 'a'") + "hydra.main('conf', 'b')\n": HydraMain(None, None, path_known=False, name_known=False),
    "import hydra\nwith hydra.initialize('conf'):\n  hydra.compose('a')\n": HydraMain(
        "conf", "a", takes_arguments=False
    ),
    "from hydra import compose, initialize_config_dir as i\ni(config_dir='/c')\ncompose(config_name='a')\n": HydraMain(
        "/c", "a", takes_arguments=False
    ),
    "from hydra import compose, initialize_config_dir as i\ni('/c', 'job')\ncompose('a', [])\n": HydraMain(
        "/c", "a", takes_arguments=False
    ),
    "import hydra\nhydra.compose('a')\n": HydraMain(None, "a", takes_arguments=False),
    "import hydra\nhydra.compose('a')\nhydra.compose('a')\n": HydraMain(None, "a", takes_arguments=False),
    "import hydra\nhydra.compose('a')\nhydra.compose('b')\n": HydraMain(
        None, UNKNOWN, name_known=False, takes_arguments=False
    ),
    "import hydra\nhydra.initialize('c')\nhydra.initialize('d')\nhydra.compose('b')\n": HydraMain(
        UNKNOWN, "b", path_known=False, takes_arguments=False
    ),
    "import hydra\nhydra.initialize('c')\n": None,
    "import hydra\nhydra.compose(overrides=['x'])\n": None,
    main("'conf', 'a'") + "hydra.compose('b')\n": HydraMain("conf", "a"),
    "import hydra\nhydra.utils.main('conf', 'a')\n": None,
    "import hydra\n": None,
    "x = 'hydra'\n": None,
    "print(1)\n": None,
    "import hydra\n@hydra.main(": None,
    "import hydra\n\0": None,
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_what_a_script_gives_to_hydra(tmp_path, script):
    (tmp_path / "t.py").write_text(script)
    assert read(str(tmp_path / "t.py")) == SCRIPTS[script]


def test_a_file_that_is_none_or_too_large_gives_nothing(tmp_path):
    assert read(str(tmp_path / "none.py")) is None
    assert hydra_main._MAX_BYTES == 4 * 2**20
    text = main("'conf', 'a'")
    (tmp_path / "t.py").write_text(text + "#" * (2**20))
    assert read(str(tmp_path / "t.py")) == HydraMain("conf", "a")
