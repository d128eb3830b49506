"""The five steps of the launcher, in the order of the design page: read, place, resolve, write, exec."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys

from nemotron_exec import options
from nemotron_exec.command import read
from nemotron_exec.environment import job_environment, without_given
from nemotron_exec.errors import EXIT_FAILED, EXIT_TEMPFAIL, LaunchError, TemporaryError
from nemotron_exec.message import Messages
from nemotron_exec.place import job, nemo_run, rank
from nemotron_exec.process import check_command, die_by_signal, discard_output, execute
from nemotron_exec.resolution import resolve
from nemotron_exec.resolution.resolution import resolved_command

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import FrameType
    from typing import NoReturn

    from nemotron_exec.options import Options

__all__ = ["launch", "main"]

# Faults of the machine, which may be gone at the next start.
_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE)


def main(words: Sequence[str], environ: Mapping[str, str]) -> NoReturn:
    """Launch the command, and turn every failure into one message and the exit code of the design page."""
    messages = Messages()
    try:
        with _output_written():
            chosen, command = options.parse(words, without_given(environ))
            messages = Messages(
                "debug" if chosen.verbose else "warning" if chosen.quiet else "info",
                "json" if chosen.log_format == "json" else "text",
                strict=chosen.strict,
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
        if isinstance(error, OSError) and error.errno in _MACHINE:
            from nemotron_exec.sitecustomize.payload.disk import no_room

            where = error.filename or "the output"
            remedy = "Make room there, and start the job again"
            found = no_room(error, where, getattr(error, "needed", None))
            fault = TemporaryError(f"write {where}", found, remedy)
            messages.error(str(fault), exit_code=_exit_code(fault, environ))
            sys.exit(_exit_code(fault, environ))
        messages.error(
            f"start the command: nemotron-exec met a {type(error).__name__} that it does not expect ({error}). "
            "Please report it with the output of the same command under -v; NEMOTRON_EXEC_DISABLE=1 starts the "
            "command as it is",
            exit_code=EXIT_FAILED,
        )
        sys.exit(EXIT_FAILED)


def launch(chosen: Options, words: Sequence[str], environ: Mapping[str, str], messages: Messages) -> NoReturn:
    """Start `words` with its artifacts resolved.

    Args:
        chosen: Options of nemotron-exec itself.
        words: The command.
        environ: The environment.
        messages: For progress lines and warnings.

    Raises:
        LaunchError: The command was not started.
        SystemExit: After `--doctor`, `--status`, `--resolve-only` and `--dry-run`.
    """
    if chosen.doctor:
        from nemotron_exec import doctor

        sys.exit(doctor.examine(chosen, words, environ))
    if chosen.status:
        from nemotron_exec import status

        sys.exit(status.report(chosen, words, environ))
    if words:
        check_command(words, environ)
    command = read.read(words, chosen.config, environ)
    if any(config.tentative for config in command.configs):
        from nemotron_exec.config import hydra

        command = hydra.without_silent(command)
    place = rank.place(environ, command)
    identity = job.identify(
        environ,
        command,
        place,
        explicit=chosen.job_id,
        nemo_run=nemo_run.nemo_run_target(),
        process=job.ProcessIdentity.current(),
    )
    own = without_given(environ)
    locked = None
    if chosen.locked or chosen.lock:
        from nemotron_exec.resolution import lock

        if chosen.locked:
            locked = lock.read(chosen.locked)
            chosen = lock.with_versions_of(locked, chosen.locked, chosen)
    resolution = resolve.resolve(command, place, identity, chosen, own, messages)
    if locked is not None and chosen.locked:
        lock.check(locked, chosen.locked, resolution, os.getcwd())
    if chosen.lock and not place.index:
        lock.write(chosen.lock, resolution, os.getcwd())
    job_words = resolved_command(command, resolution, nemo_run.translation(environ))
    # A command without a config of its own belongs to the job around it, so its checkpoints go to that job's store.
    apart = bool(command.configs or chosen.artifact or chosen.artifacts) or own is environ
    environment = job_environment(
        own if apart else environ,
        store=(resolution.store or None) if apart else None,
        backend=resolution.backend,
        handoff=resolution.handoff,
        handoff_value=resolution.handoff_value,
        defaults=resolution.variables,
        settings=resolution.settings,
        strict=chosen.strict,
    )
    if resolution.outputs and not place.index:
        _expect_outputs(job_words, environment, messages)
    if not chosen.dry_run and any(one.fields.get("trust_remote_code") is True for one in resolution.artifacts):
        from nemotron_exec.resolution.remote_code import prepare_remote_code

        hub = {**resolution.variables, **environ, **resolution.settings}
        prepare_remote_code(resolution.artifacts, words, hub, messages)
    if chosen.resolve_only:
        from nemotron_exec.resolution import resolve_only

        sys.exit(resolve_only.report(resolution, chosen.output))
    if chosen.dry_run:
        from nemotron_exec.resolution import dry_run

        plan = dry_run.Plan(place, identity, resolution, job_words, environ, environment)
        sys.exit(dry_run.report(plan, as_json=chosen.log_format == "json"))
    if messages.verbose and resolution.handoff and not place.index:
        from nemotron_exec.patches import describe

        messages.debug(describe(environ))
    if _Signalled.arrived:
        raise _Signalled(_Signalled.arrived)
    execute(job_words, environment)


def _expect_outputs(words: Sequence[str], environment: dict[str, str], messages: Messages) -> None:
    """Have the injector register `run.outputs` after this process, which becomes the command, has ended well."""
    from nemotron_exec.doctor.own_interpreter import start_of
    from nemotron_exec.sitecustomize.payload.checkpoints.outputs import VARIABLE

    environment[VARIABLE] = str(os.getpid())  # the process keeps its number across exec
    if start_of(words, environment).words is not None:
        return
    messages.warning(
        f"run.outputs: {words[0]} is no Python. Outputs are registered only if it becomes one by exec; else call "
        "nemotron-artifact add after the command"
    )


class _Signalled(BaseException):
    """SIGTERM or SIGHUP arrived while this process was still the launcher.

    Attributes:
        arrived: Number of the signal; 0 before one arrives. Python drops an exception raised in a callback or a
            finalizer, and the job must not start then either.
    """

    arrived = 0

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextlib.contextmanager
def _signals_as_exceptions() -> Iterator[None]:
    """Until exec, turn a signal into an exception, so that leases are released and no half-written file stays."""

    def unwind(number: int, _frame: FrameType | None) -> None:
        _Signalled.arrived = number
        raise _Signalled(number)

    caught = [
        number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_DFL
    ]  # a signal that was ignored at the start stays ignored, above all nohup's SIGHUP
    for number in caught:
        signal.signal(number, unwind)
    # The handlers need not be restored before exec: the kernel resets caught signals there, and keeps ignored ones.
    try:
        yield
    finally:
        for number in caught:
            # Keep SIGTERM ignored where the exit code of the job's error is held (publishing.hold_exit_code).
            if signal.getsignal(number) is unwind:
                signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def _output_written() -> Iterator[None]:
    """Write all output before the process ends, and report a full disk like any other fault."""
    try:
        with contextlib.suppress(AttributeError):
            sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a path may be no UTF-8
        try:
            yield
        finally:
            sys.stdout.flush()
    except OSError:
        if not _nobody_reads():
            discard_output()
        raise


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
        # The scheduler may retry on another code than 75.
        with contextlib.suppress(ValueError):
            return int(environ.get("NEMOTRON_EXEC_TEMPFAIL_CODE", "")) & 0xFF
    return error.exit_code


def _show_traceback(messages: Messages) -> None:
    if messages.verbose:
        import traceback

        for line in traceback.format_exc().splitlines():
            messages.debug(line)
