"""`nemotron-exec [OPTIONS] [--] COMMAND [ARGS]...`: the console script.

A command with nothing to resolve is exec'ed from here, so that it costs only an interpreter's start. Until that is
decided, nothing is imported that the interpreter has not loaded already.
"""

from __future__ import annotations

import os
import sys

from nemotron_exec.command_scan import may_need_resolving
from nemotron_exec.environment import homeless, job_environment
from nemotron_exec.errors import LaunchError
from nemotron_exec.message import Messages
from nemotron_exec.process import execute, hold_closed_streams

__all__ = ["main"]


def main() -> None:
    """Start the command, or print why not and exit with the code of design.md."""
    words = sys.argv[1:]
    if sys.stdin is None or sys.stdout is None or sys.stderr is None:
        hold_closed_streams()
    if may_need_resolving(words, os.environ, os.getcwd):
        import gc

        # Modules and trees live until exec, so collecting garbage among them would only cost a twelfth of the time.
        gc.set_threshold(100_000)
        from nemotron_exec.launch import main as launch

        launch(words, os.environ)
    command = words[1:] if words[:1] == ["--"] else words
    environment = job_environment(os.environ)
    if "NEMOTRON_EXEC_STORE" not in environment and "NEMOTRON_EXEC_ACTIVE" in environment:
        problem = homeless("")
        Messages().warning(f"no checkpoint is registered: {problem.found}. {problem.remedy}")
    try:
        execute(command, environment)
    except LaunchError as error:
        Messages().error(str(error))
        sys.exit(error.exit_code)
