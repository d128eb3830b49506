"""torchrun and its look-alikes: their options, and the program that they start."""

from __future__ import annotations

import os

from nemotron_exec.command.words import ElasticLauncher, word_at
from nemotron_exec.command_scan import is_yaml_name, module_in
from nemotron_exec.sitecustomize.payload.lazy import pattern

__all__ = ["find_program"]

# torch/distributed/run.py, get_args_parser: the options that take no value. All others take one, and so do
# ft_launcher's own (`--ft-…`): `--ft-cfg-path F.yaml` is not the training config.
_FLAGS = frozenset(
    {
        "standalone",
        "module",
        "no_python",
        "run_path",
        "virtual_local_rank",
        "help",
        "use_env",  # torch.distributed.launch
        "ignore_missing_fault_tol_cfg",  # ft_launcher, deprecated
    }
)

_SHORT = {"-m": "module", "-r": "redirects", "-t": "tee", "-h": "help"}

_LAUNCHERS = {"torchrun": "torchrun", "ft_launcher": "ft_launcher"}

_LAUNCHER_MODULES = {
    "torch.distributed.run": "torchrun",
    "torch.distributed.launch": "torchrun",
    "nvidia_resiliency_ext.fault_tolerance.launcher": "ft_launcher",
}

_PYTHON = pattern(r"(?:python|pypy)[\d.]*\Z")

# argparse takes a word with a dash for an option, unless it is a dash alone or a number.
_OPTION = pattern(r"-(?!(?:\d+\.?\d*|\.\d+)?\Z)")
_CODE = pattern(r"-[bBdEhiIOPqRsSuvx]*c\Z")
# Options of the interpreter that take the next word (python --help).
_PYTHON_VALUED = frozenset({"-W", "-X", "--check-hash-based-pycs"})


def find_program(argv: tuple[str, ...]) -> tuple[ElasticLauncher | None, int]:
    """The launcher of the command, and the index of the program that it starts."""
    for index, word in enumerate(argv):
        name = os.path.basename(word)
        if name in _LAUNCHERS:
            return _read_launcher(argv, index + 1, _LAUNCHERS[name])
        if _PYTHON.match(name):
            return _read_python(argv, index)
        if is_yaml_name(word) or name.endswith(".py") or (name.endswith(".sh") and not _starts_a_command(argv, index)):
            break
    # The program is a shell script or stands after unknown wrappers (`numactl -N0 prog`): every later word may be an
    # override.
    return None, 0


def _starts_a_command(argv: tuple[str, ...], script: int) -> bool:
    """Whether a script execs its arguments, as an image's entrypoint does: `nvidia_entrypoint.sh torchrun …`."""
    name = os.path.basename(word_at(argv, script + 1) or "")
    return name in _LAUNCHERS or bool(_PYTHON.match(name))


def _read_python(argv: tuple[str, ...], python: int) -> tuple[ElasticLauncher | None, int]:
    index = python + 1
    while index < len(argv) and argv[index].startswith("-"):
        word = argv[index]
        name = module_in(word)
        if name is not None:
            at = index if name else index + 1
            kind = _LAUNCHER_MODULES.get(name or word_at(argv, at) or "")
            return _read_launcher(argv, at + 1, kind) if kind else (None, at)
        if _CODE.match(word):
            return None, index + 1
        index += 2 if word in _PYTHON_VALUED else 1
    return None, index


def _is_no_value(argv: tuple[str, ...], index: int) -> bool:
    """Whether the word cannot be the value of the option before it: another option, or an existing script.

    New versions of a launcher bring new flags. So no option is taken for a value.
    """
    word = word_at(argv, index) or ""
    return _OPTION.match(word) is not None or (word.endswith(".py") and os.path.isfile(word))


def _read_launcher(argv: tuple[str, ...], index: int, kind: str) -> tuple[ElasticLauncher, int]:
    options: dict[str, str] = {}
    while index < len(argv):
        word = argv[index]
        index += 1
        if word == "--":
            break
        if not word.startswith("-") or word == "-":
            index -= 1
            break
        name, equals, value = word.partition("=")
        name = _SHORT.get(name, name.lstrip("-").replace("-", "_"))
        if not equals and name not in _FLAGS and not _is_no_value(argv, index):
            value = word_at(argv, index) or ""
            index += 1
        options[name] = value
    if "no_python" in options and index < len(argv):
        # torchrun starts another command here (`torchrun --no-python nemotron-exec python train.py`): find that
        # command's program.
        _, inner = find_program(argv[index:])
        return ElasticLauncher(kind, options), index + inner
    return ElasticLauncher(kind, options), index
