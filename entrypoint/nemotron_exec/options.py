"""The options of nemotron-exec in one table. Parser, environment twins and reference page are made from it.

click is loaded only for an option, an error or a help text. Options that come from the environment alone (a Docker
ENTRYPOINT) do not need it.
"""

from __future__ import annotations

import os

from nemotron_exec.backends import BACKENDS
from nemotron_exec.errors import UsageError
from nemotron_exec.frozen import dataclass
from nemotron_exec.sitecustomize.payload.flags import is_on

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    import click

__all__ = ["OPTIONS", "Option", "Options", "parse"]


@dataclass(frozen=True)
class Options:
    """The options that the user gave to nemotron-exec itself. Times are in seconds."""

    config: tuple[str, ...] = ()
    artifact: tuple[str, ...] = ()
    artifacts: str | None = None
    backend: str = "auto"
    store: str | None = None
    resolve: str = "artifacts"
    env_file: str | None = None
    run: str | None = None
    state_dir: str | None = None
    cache_dir: str | None = None
    job_id: str | None = None
    pin: str | None = None
    timeout: float = 1800.0
    stall: float = 120.0
    lock: str | None = None
    locked: str | None = None
    refresh: bool = False
    rendezvous: str = "auto"
    resolve_only: bool = False
    output: str | None = None
    dry_run: bool = False
    doctor: bool = False
    status: bool = False
    json: bool = False
    strict: bool = False
    verbose: bool = False
    quiet: bool = False
    log_format: str = "text"


@dataclass(frozen=True)
class Option:
    """One row of the table.

    Attributes:
        name: Field of `Options`.
        flags: The flags of the command line.
        help: One sentence.
        metavar: Placeholder of the value; None for a flag.
        choices: The allowed values; () for any.
        convert: Converts text to a value; raises ValueError.
        expects: Description of the texts that `convert` takes.
        twin: Whether `NEMOTRON_EXEC_<NAME>` is read (design ruling 21).
    """

    name: str
    flags: tuple[str, ...]
    help: str
    metavar: str | None = None
    choices: tuple[str, ...] = ()
    convert: Callable[[str], Any] = str
    expects: str = ""
    twin: bool = True

    @property
    def variable(self) -> str | None:
        """The environment variable that sets the option."""
        return f"NEMOTRON_EXEC_{self.name.upper()}" if self.twin else None


_SECONDS = "a number of seconds, 0 or more"


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ValueError(text)
    return value


def _truth(text: str) -> bool:
    on = is_on(text)
    if on is None:
        raise ValueError(text)
    return bool(on)


def _paths(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(os.pathsep) if part)


def _lines(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.splitlines() if part.strip())


_WIDEST = 160  # columns of --help, where click would stop at 80
_REPEATABLE = ("config", "artifact")
OPTIONS: tuple[Option, ...] = (
    Option(
        "config",
        ("-c", "--config"),
        "YAML file to resolve (repeatable; in the environment separated by ':'). Default: every argument of COMMAND "
        "that names a YAML file with a `run` section or an ${art:…} in it or in a file it inherits from.",
        "PATH",
        convert=_paths,
    ),
    Option(
        "artifact",
        ("--artifact",),
        "Artifact of the job, as `run: {KEY: REF}` names one (repeatable; in the environment one a line). It wins over "
        "the config, which needs no `run` section.",
        "KEY=REF",
        convert=_lines,
    ),
    Option(
        "artifacts",
        ("--artifacts",),
        "YAML file with one `KEY: REF` a line, as --artifact names them; --artifact wins.",
        "FILE",
    ),
    Option(
        "backend",
        ("--backend",),
        "Where references are looked up. auto: W&B where a project and a key are configured, else the manifest store.",
        "NAME",
        ("auto", *(backend.name for backend in BACKENDS if backend.option)),
    ),
    Option("store", ("--store",), "Root of the manifest store: a path or any fsspec URI.", "URI"),
    Option(
        "resolve",
        ("--resolve",),
        "Which ${…} are replaced. artifacts: those that depend on ${art:…} or ${run.…}; all: also every one that means "
        "the same on all ranks and after the command's overrides.",
        "WHAT",
        ("all", "artifacts"),
    ),
    Option(
        "env_file",
        ("--env-file",),
        "env.toml. Default: NEMOTRON_ENV_FILE, else the nearest env.toml upward from the working directory.",
        "PATH",
    ),
    Option("run", ("--run",), "Profile of env.toml.", "PROFILE"),
    Option(
        "state_dir",
        ("--state-dir",),
        "Directory that every node sees, for coordination and the resolved YAML.",
        "DIR",
    ),
    Option("cache_dir", ("--cache-dir",), "Downloads of artifacts, shared between jobs.", "DIR"),
    Option("job_id", ("--job-id",), "Identity of the job, where no scheduler gives one.", "ID"),
    Option(
        "pin",
        ("--pin",),
        "File that pins the versions for every later job that resumes here. Default: beside the output directory.",
        "FILE",
    ),
    Option(
        "timeout",
        ("--timeout",),
        "Give up resolving, and waiting for it, after this many seconds.",
        "S",
        convert=_seconds,
        expects=_SECONDS,
    ),
    Option(
        "stall",
        ("--stall",),
        "Stop all nodes if the resolving one makes no progress for this many seconds.",
        "S",
        convert=_seconds,
        expects=_SECONDS,
    ),
    Option("lock", ("--lock",), "Write what is resolved, with versions and digests, to this YAML.", "FILE", twin=False),
    Option("locked", ("--locked",), "Start only with exactly what this lock names, and say what differs.", "FILE"),
    Option("refresh", ("--refresh",), "Ask again instead of reusing the versions of an earlier start."),
    Option(
        "rendezvous",
        ("--rendezvous",),
        "How several nodes agree. auto: a shared directory; c10d: the job's own PyTorch, where there is none.",
        "HOW",
        ("auto", "c10d"),
    ),
    Option(
        "resolve_only",
        ("--resolve-only",),
        "Resolve and write, print the answer as JSON and exit: for init containers, prologs, CI, notebooks.",
        twin=False,
    ),
    Option("output", ("-o", "--output"), "With --resolve-only: write the resolved YAML here.", "FILE", twin=False),
    Option("dry_run", ("--dry-run",), "Do everything but exec, and print the plan.", twin=False),
    Option("doctor", ("--doctor",), "Check this container and say what would not work.", twin=False),
    Option(
        "status",
        ("--status",),
        "Say what is known of the jobs in the state directory; a job's id in place of COMMAND: of that job.",
        twin=False,
    ),
    Option("json", ("--json",), "With --status: print JSON.", twin=False),
    Option("strict", ("--strict",), "Make failures inside the job's interpreters fatal, and warnings errors."),
    Option("verbose", ("-v", "--verbose"), "Say more; show the traceback of an error."),
    Option("quiet", ("-q", "--quiet"), "Say nothing but warnings and errors."),
    Option("log_format", ("--log-format",), "Messages as text, or one JSON object a line.", "FORMAT", ("text", "json")),
)


def parse(words: Sequence[str], environ: Mapping[str, str]) -> tuple[Options, tuple[str, ...]]:
    """Split the command line into the options of nemotron-exec and the command.

    Args:
        words: Everything after `nemotron-exec`.
        environ: The environment, for the options' environment twins. An option on the command line wins.

    Returns:
        The options, and the words of COMMAND (empty only with an option that needs none).

    Raises:
        UsageError: An option or a value does not exist, or there is no command.
        SystemExit: The words are `--help` or `--version`, or a shell asks for completion; the code is 0.
    """
    values = _from_environment(environ)
    completing = bool(environ.get("_NEMOTRON_EXEC_COMPLETE"))
    if completing or not words or (words[0].startswith("-") and words[0] != "--"):
        given, command = _with_click(words, environ)
        values.update(given)
    else:
        command = tuple(words[1:] if words[0] == "--" else words)
    options = Options(**values)
    if not command and not (options.doctor or options.status or (options.resolve_only and options.config)):
        raise UsageError(
            "start a command", "none was given", "Write `nemotron-exec [OPTIONS] [--] COMMAND [ARGS]...`; see --help"
        )
    if options.json and not options.status:
        raise UsageError("print JSON", "no --status", "Give both, or --log-format json")
    if options.status and len(command) > 1:
        raise UsageError("say what is known of a job", f"{len(command)} words", "Write nemotron-exec --status [JOB]")
    if options.output and not options.resolve_only:
        raise UsageError("write the resolved YAML to -o", "no --resolve-only", "Give both, or neither")
    return options, command


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if is_on(environ.get("NEMOTRON_EXEC_DISABLE")) is None:
        raise UsageError(
            "read NEMOTRON_EXEC_DISABLE", repr(environ["NEMOTRON_EXEC_DISABLE"]), "It takes 1, true, yes, on, or 0"
        )
    for option in OPTIONS:
        text = environ.get(option.variable) if option.variable else None
        if text:
            values[option.name] = _convert(option, text, option.variable or "")
    return values


def _convert(option: Option, text: str, written: str) -> Any:
    expected = "one of " + ", ".join(option.choices) if option.choices else option.expects
    if not option.choices or text in option.choices:
        try:
            return option.convert(text) if option.metavar else _truth(text)
        except ValueError:
            pass
    raise UsageError(f"read {written}", f"{text!r}", f"It takes {expected or '1 or 0'}")


def _with_click(words: Sequence[str], environ: Mapping[str, str]) -> tuple[dict[str, Any], tuple[str, ...]]:
    import click

    command = click_command()
    if instruction := environ.get("_NEMOTRON_EXEC_COMPLETE"):
        from click.shell_completion import shell_complete

        raise SystemExit(shell_complete(command, {}, "nemotron-exec", "_NEMOTRON_EXEC_COMPLETE", instruction))
    try:
        context = command.make_context("nemotron-exec", list(words))
    except click.exceptions.Exit as done:  # click exits after --help and --version
        raise SystemExit(done.exit_code) from None
    except click.UsageError as error:
        raise UsageError(
            "read the command line", error.format_message().rstrip("."), "See nemotron-exec --help"
        ) from None
    with context:
        by_name = {option.name: option for option in OPTIONS}
        given: dict[str, Any] = {}
        for name, value in context.params.items():
            if name not in by_name or value in (None, (), False):
                continue
            option = by_name[name]
            if name in _REPEATABLE:
                given[name] = tuple(value)
            else:
                given[name] = _convert(option, value, option.flags[-1]) if option.metavar else value
        return given, tuple(context.params["command"])


def click_command() -> click.Command:
    """The table as a click command: for parsing, `--help`, shell completion and the reference page."""
    import click

    from nemotron_exec import __version__
    from nemotron_exec.help_page import HelpPage

    params: list[click.Parameter] = []
    for option in OPTIONS:
        if option.metavar is None:
            params.append(click.Option(list(option.flags), is_flag=True, help=option.help))
            continue
        params.append(
            click.Option(
                list(option.flags),
                help=option.help,
                metavar=option.metavar if not option.choices else None,
                type=click.Choice(list(option.choices)) if option.choices else click.STRING,
                multiple=option.name in _REPEATABLE,
            )
        )
    params.append(click.Argument(["command"], nargs=-1, type=click.UNPROCESSED, metavar="COMMAND [ARGS]..."))
    command = HelpPage(
        "nemotron-exec",
        params=params,
        context_settings={
            "allow_interspersed_args": False,
            "help_option_names": ["-h", "--help"],
            "max_content_width": _WIDEST,
        },
        options_metavar="[OPTIONS] [--]",
        help="Start COMMAND with the artifacts of its config resolved and its checkpoints tracked.\n\n"
        "Messages go to stderr; stdout, signals and exit code are COMMAND's. Exit codes of nemotron-exec itself: "
        "125 it failed, 75 it may pass later, 126 COMMAND is not executable, 127 not found, 2 wrong usage.",
    )
    return click.version_option(__version__, prog_name="nemotron-exec", message="%(prog)s %(version)s")(command)
