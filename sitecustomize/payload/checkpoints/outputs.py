"""`run.outputs`: what stands in a directory when the command ends well becomes an artifact; the script needs no line.

The launcher's PID is the command's: `exec` keeps it. The Python with that PID has the command's exit code, and only the
C library learns that code (`raise SystemExit(3)` is over before any exit hook runs). So an exit hook writes the outbox
entries, and has the C library write the exit code beside each as the process's last act. An entry without a code, or
with another code than 0, registers nothing: a crash, `os._exit` and a signal leave none.

A child with the launcher's Python waits for the end and registers. If it is killed with the job, a next start of any
job with that store does it, or `nemotron-artifact flush`.
"""

from __future__ import annotations

import os

__all__ = ["VARIABLE", "arm", "write_exit_code"]

VARIABLE = "NEMOTRON_EXEC_OUTPUTS"
"""The process whose end is the command's: its PID. The launcher of rank 0 sets it."""
ALIAS = "output"
"""Of the newest version: by it the one before is found, whose directory now has other data."""
_IONBF = 2


def arm():
    """Look at the outputs when this process ends. Called at interpreter start: nothing is imported for it."""
    import atexit

    # The first hook that is registered runs last: what other hooks write is there by then.
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
            if not failed:  # the job's own error says enough
                notice.warning("run.outputs: nothing stands in %s, and %s gets no version" % (directory, name))
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
        # The run record would lie in the output.
        entry["metadata"].pop("run_record", None)
        entry["ends_with"] = 0
        # What the script has recorded itself under this name is the same version.
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

    Python is gone by then, and no Python function could be called.

    Args:
        path: The file.
        flags: Of open(2), beside O_WRONLY: a new file, or one to append to.
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
    """Start the process that registers the entries when this one has ended: it sees the end of its stdin."""
    import subprocess

    from .. import notice

    python = os.environ.get("NEMOTRON_EXEC_PYTHON")
    if not python:
        return
    # The launcher's environment is not the job's: none of the job's paths, and no injection.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environ["NEMOTRON_EXEC_DISABLE"] = "1"
    ours, _ = os.pipe()  # the other end stays open until this process is gone, by whatever way
    try:
        child = subprocess.Popen(
            [python, "-I", "-m", "nemotron_exec.outbox.outputs", *entries],
            stdin=ours,
            stdout=subprocess.DEVNULL,
            env=environ,
        )
        child.returncode = 0  # this process does not wait for it, and Popen would warn
    except OSError as error:
        notice.debug("outputs are registered by the next start: %s" % error)
    finally:
        os.close(ours)
