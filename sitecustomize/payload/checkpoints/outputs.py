"""`run.outputs`: a directory becomes an artifact when the command ends with exit code 0. The script needs no line.

The launcher's PID is the command's: `exec` keeps it. The Python process with that PID has the command's exit code, but
no exit hook can read it: only the C library gets the code of `raise SystemExit(3)`. So an exit hook writes the outbox
entries, and has the C library write the exit code beside each as the process's last act. An entry without a code, or
with another code than 0, registers nothing. A crash, `os._exit` and a signal leave no code.

A child with the launcher's Python waits for the end and registers the outputs. If the child is killed with the job, the
next start of any job with that store registers them, or `nemotron-artifact flush`.
"""

from __future__ import annotations

import os

__all__ = ["VARIABLE", "arm", "write_exit_code"]

VARIABLE = "NEMOTRON_EXEC_OUTPUTS"
"""PID of the process whose end is the command's end. The launcher of rank 0 sets it."""
ALIAS = "output"
"""Alias of the newest version. By it the previous version is found, whose directory now has other data."""
_IONBF = 2


def arm():
    """Register an exit hook for the outputs. Called at interpreter start, so it imports no further module."""
    import atexit

    # atexit runs the first hook last, so this hook sees the files that other hooks write.
    atexit.register(_at_exit, os.getpid())


def _at_exit(pid):
    if os.getpid() != pid:
        return  # a forked child
    from .. import notice

    try:
        _announce()
    except Exception as error:
        notice.warning("run.outputs: nothing is registered: %r" % (error,))


def _announce():
    import sys

    from .. import handoff, notice
    from . import describe, outbox, record
    from .settings import settings

    failed = getattr(sys, "last_type", None) is not None
    entries = []
    for name, directory in sorted((handoff.read().get("outputs") or {}).items()):
        if not _has_something(directory):
            if not failed:  # after an error of the job, the error itself explains it
                notice.warning(
                    "run.outputs: %s is empty or missing at the end, so %s gets no version" % (directory, name)
                )
            continue
        entry = describe.describe(
            describe.Completed(
                framework="script",
                versions=describe.versions("script", {"torch": "torch", "wandb": "wandb"}),
                save_dir=directory,
                checkpoint_path=directory,
                number=None,
                alias=ALIAS,
                path_is_checkpoint=True,
                transient=False,
                best=None,
                extra={"format": describe.format_of(directory)},
                name=name,
            ),
            settings(),
        )
        # The run record would be a file inside the output.
        entry["metadata"].pop("run_record", None)
        entry["ends_with"] = 0
        # If the script itself has recorded this directory, that is the same version, so nothing is superseded.
        entry["supersedes"] = None
        entries.append(outbox.write(record.outboxes("", settings())[0], entry))
    if not entries:
        return
    try:
        for path in entries:
            write_exit_code(outbox.exit_code_of(path))
    except Exception as error:
        for path in entries:
            outbox.remove(path)
        raise RuntimeError("the exit code is not to be had here (%s); call record_checkpoint" % error) from error
    _wait_in_child(entries)


def _has_something(directory):
    try:
        return any(name != ".nemotron-exec" for name in os.listdir(directory))
    except NotADirectoryError:
        return True
    except OSError:
        return False


def write_exit_code(path, flags=os.O_CREAT | os.O_EXCL):
    """Have the C library write the process's exit code, one byte, to a file: glibc's on_exit(3) with fputc(3).

    The interpreter is finalized by then, so no Python function can do it.

    Args:
        path: The file.
        flags: Flags of open(2) beside O_WRONLY: for a new file, or for appending.
    """
    import ctypes

    libc = ctypes.CDLL(None)
    libc.fdopen.restype = ctypes.c_void_p
    libc.fdopen.argtypes = [ctypes.c_int, ctypes.c_char_p]
    libc.setvbuf.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
    libc.on_exit.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    descriptor = os.open(path, os.O_WRONLY | flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    stream = libc.fdopen(descriptor, b"w")
    if not stream or libc.setvbuf(stream, None, _IONBF, 0):
        raise OSError("fdopen failed")
    if libc.on_exit(ctypes.cast(libc.fputc, ctypes.c_void_p), stream):
        raise OSError("on_exit failed")


def _wait_in_child(entries):
    """Start the process that registers the entries. The end of its stdin tells it that this process has ended."""
    import subprocess

    from .. import notice

    python = os.environ.get("NEMOTRON_EXEC_PYTHON")
    if not python:
        return
    # The launcher's interpreter needs its own packages: drop the job's PYTHON variables and the injector.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environ["NEMOTRON_EXEC_DISABLE"] = "1"
    ours, _ = os.pipe()  # the kernel closes the other end when this process ends, however it ends
    try:
        child = subprocess.Popen(
            [python, "-I", "-m", "nemotron_exec.outbox.outputs", *entries],
            stdin=ours,
            stdout=subprocess.DEVNULL,
            env=environ,
        )
        child.returncode = 0  # this process does not wait for the child; without this Popen warns
    except OSError as error:
        notice.debug("outputs are registered by the next start: %s" % error)
    finally:
        os.close(ours)
