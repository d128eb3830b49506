"""The five steps of the launcher, in the order of the design page: read, place, resolve, write, exec."""

from __future__ import annotations

import contextlib
import signal
import sys

from nemotron_exec import command as commands
from nemotron_exec import job, options, rank, resolve
from nemotron_exec.environment import job_environment
from nemotron_exec.errors import EXIT_FAILED, EXIT_TEMPFAIL, LaunchError
from nemotron_exec.message import Messages
from nemotron_exec.process import check_command, die_by_signal, execute
from nemotron_exec.resolution import resolved_command

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import FrameType
    from typing import NoReturn

    from nemotron_exec.options import Options

__all__ = ["launch", "main"]


def main(words: Sequence[str], environ: Mapping[str, str]) -> NoReturn:
    """Launch, and turn every way of failing into one message and the exit code of the design page."""
    messages = Messages()
    try:
        chosen, command = options.parse(words, environ)
        messages = Messages(
            "debug" if chosen.verbose else "warning" if chosen.quiet else "info",
            "json" if chosen.log_format == "json" else "text",
        )
        with _signals_as_exceptions():
            launch(chosen, command, environ, messages)
    except LaunchError as error:
        _show_traceback(messages)
        messages.error(str(error), exit_code=_exit_code(error, environ))
        sys.exit(_exit_code(error, environ))
    except _Signalled as signalled:
        die_by_signal(signalled.number)
    except KeyboardInterrupt:
        die_by_signal(signal.SIGINT)
    except Exception as error:  # noqa: BLE001  # no traceback reaches a user
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            die_by_signal(signal.SIGPIPE)
        _show_traceback(messages)
        messages.error(
            f"start the command: nemotron-exec met a {type(error).__name__} that it does not expect ({error}). "
            "Please report it with the output of the same command under -v; NEMOTRON_EXEC_DISABLE=1 starts the "
            "command without us",
            exit_code=EXIT_FAILED,
        )
        sys.exit(EXIT_FAILED)


def launch(chosen: Options, words: Sequence[str], environ: Mapping[str, str], messages: Messages) -> NoReturn:
    """Start `words` with its artifacts resolved.

    Args:
        chosen: Options of nemotron-exec itself.
        words: The command.
        environ: The environment.
        messages: Where to say what is done.

    Raises:
        LaunchError: The command was not started.
        SystemExit: After `--doctor`, `--resolve-only` and `--dry-run`.
    """
    if chosen.doctor:
        from nemotron_exec import doctor

        sys.exit(doctor.examine(chosen, words, environ))
    if words:
        check_command(words, environ)
    command = commands.read(words, chosen.config, environ)
    place = rank.place(environ, command)
    identity = job.identify(
        environ,
        command,
        place,
        explicit=chosen.job_id,
        nemo_run=resolve.nemo_run_target(),
        process=job.ProcessIdentity.current(),
    )
    resolution = resolve.resolve(command, place, identity, chosen, environ, messages)
    job_words = resolved_command(command, resolution, resolve.translation(environ))
    environment = job_environment(
        environ,
        store=resolution.store,
        backend=resolution.backend,
        handoff=resolution.handoff,
        defaults=resolution.variables,
    )
    if chosen.strict:
        environment["NEMOTRON_EXEC_STRICT"] = "1"
    if chosen.resolve_only:
        from nemotron_exec import resolve_only

        sys.exit(resolve_only.report(resolution, chosen.output))
    if chosen.dry_run:
        from nemotron_exec import dry_run

        plan = dry_run.Plan(place, identity, resolution, job_words, environ, environment)
        sys.exit(dry_run.report(plan, as_json=chosen.log_format == "json"))
    if resolution.handoff and not place.index and not messages.quiet:
        from nemotron_exec.patches import describe

        messages.info(describe(environ))
    if _Signalled.arrived:
        raise _Signalled(_Signalled.arrived)
    execute(job_words, environment)


class _Signalled(BaseException):
    """SIGTERM or SIGHUP arrived while we were still the launcher.

    Attributes:
        arrived: The number of one that arrived. Python drops an exception that is raised in a callback or a finalizer;
            the job must not start then either.
    """

    arrived = 0

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextlib.contextmanager
def _signals_as_exceptions() -> Iterator[None]:
    """Until exec, let a signal unwind the stack, so that leases are released and nothing half-written stays."""

    def unwind(number: int, _frame: FrameType | None) -> None:
        _Signalled.arrived = number
        raise _Signalled(number)

    caught = [
        number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_DFL
    ]  # what was ignored when we were started stays ignored, nohup's SIGHUP above all
    for number in caught:
        signal.signal(number, unwind)
    # No restoring before exec is needed: the kernel resets caught signals there, and leaves ignored ones alone.
    try:
        yield
    finally:
        for number in caught:
            signal.signal(number, signal.SIG_DFL)


def _nobody_reads() -> bool:
    """Whether stdout is a pipe without a reader: `nemotron-exec --help | head -1` is no failure."""
    import select

    with contextlib.suppress(OSError, ValueError):
        poll = select.poll()
        poll.register(sys.stdout, 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    return False


def _exit_code(error: LaunchError, environ: Mapping[str, str]) -> int:
    if error.exit_code == EXIT_TEMPFAIL:
        # A scheduler may know another code as "try again".
        with contextlib.suppress(ValueError):
            return int(environ.get("NEMOTRON_EXEC_TEMPFAIL_CODE", "")) & 0xFF
    return error.exit_code


def _show_traceback(messages: Messages) -> None:
    if messages.verbose:
        import traceback

        for line in traceback.format_exc().splitlines():
            messages.debug(line)
