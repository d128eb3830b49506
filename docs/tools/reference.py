"""Write docs/reference.md from the code: python docs/tools/reference.py [--check]"""

from __future__ import annotations

import sys
from pathlib import Path

from page import write_or_compare

from nemotron_exec import errors, options
from nemotron_exec.variables import OTHERS, VARIABLES

PAGE = Path(__file__).resolve().parent.parent / "reference.md"

HEAD = """\
<!-- Written by docs/tools/reference.py from the code; `make reference` writes it again. -->
# Options, variables and exit codes

`nemotron-exec [OPTIONS] [--] COMMAND [ARGS]...`: options stop at the first word that is not one, and nothing of
COMMAND's is parsed. An option on the command line wins over its variable. Flags take
`1`, `true`, `yes`, `on` or `0`, `false`, `no`, `off` in the environment. Who wins between options, config and env.toml:
[how a config is read](configuration.md).

## Options
| option | variable | default | meaning |
|---|---|---|---|
"""

PLACE = """
*Place*: where no option of nemotron-exec says it, torchrun's worker variables, the options of torchrun or ft_launcher,
`PET_*`, Slurm, SkyPilot, dstack, MPI, Kubernetes' completion index and a bare `RANK` are asked, in this order.

## Variables of others
| variable | read by | without it | meaning |
|---|---|---|---|
"""

CODES = {
    "EXIT_USAGE": "wrong usage of nemotron-exec",
    "EXIT_TEMPFAIL": "nemotron-exec failed and may succeed later: W&B down, disk full, time-out "
    "(`NEMOTRON_EXEC_TEMPFAIL_CODE` names another code)",
    "EXIT_FAILED": "nemotron-exec failed and would fail again: bad reference, bad YAML, bad key",
    "EXIT_NOT_EXECUTABLE": "COMMAND was found and cannot be executed",
    "EXIT_NOT_FOUND": "COMMAND was not found",
}

ARTIFACT_CODES = """
Every other code is COMMAND's own. A signal before the start of COMMAND ends nemotron-exec by that signal. `--doctor`
exits with 0 if the job would work, else 1.

`nemotron-artifact` exits with 0 when it is done, 1 when `verify` found errors, 2 for wrong usage, 75 if it may work
later and 125 if it failed.

## Shell completion
```sh
eval "$(nemotron-artifact completion bash)"    # both programs; zsh: the same with zsh, after compinit
```

In fish: `nemotron-artifact completion fish | source`. Options of nemotron-exec are completed up to COMMAND, and COMMAND
as if it stood alone.
"""


def text() -> str:
    """The whole page."""
    defaults = vars(options.Options())
    lines = [HEAD]
    for option in options.OPTIONS:
        flags = ", ".join(f"`{flag}`" for flag in option.flags)
        value = f" {option.metavar}" if option.metavar and not option.choices else ""
        meaning = option.help + (f" One of {', '.join(option.choices)}." if option.choices else "")
        variable = f"`{option.variable}`" if option.variable else ""
        lines.append(_row(flags + value, variable, _default(defaults[option.name]), meaning))
    lines.append(_row("`-h`, `--help`", "", "", "Show the options."))
    lines.append(_row("`--version`", "", "", "Show the version."))
    lines.append("\n## Further variables\n| variable | read by | without it | meaning |\n|---|---|---|---|\n")
    lines += [_variable(variable) for variable in VARIABLES]
    lines.append("\n*Set for the job*: the launcher sets or removes these, whatever they were.\n")
    lines.append(PLACE)
    lines += [_variable(variable) for variable in OTHERS]
    lines.append("\n## Exit codes\n| code | meaning |\n|---|---|\n")
    lines += [_row(str(getattr(errors, name)), meaning) for name, meaning in CODES.items()]
    lines.append(ARTIFACT_CODES)
    return "".join(lines)


def _variable(variable) -> str:
    given = " *Set for the job.*" if variable.given else ""
    return _row(f"`{variable.name}`", variable.reader, variable.default, variable.meaning + given)


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _default(value: object) -> str:
    if value in (None, (), False):
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(write_or_compare(PAGE, text()))
