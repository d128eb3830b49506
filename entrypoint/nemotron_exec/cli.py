"""`nemotron-exec [OPTIONS] [--] COMMAND [ARGS]...`: the console script.

A command with nothing to resolve is exec'ed from here, at the cost of an interpreter's start: until that is decided
nothing is imported but what the interpreter has loaded already.
"""

from __future__ import annotations

import os
import sys

from nemotron_exec.command_scan import may_need_resolving
from nemotron_exec.environment import job_environment
from nemotron_exec.errors import LaunchError
from nemotron_exec.message import Messages
from nemotron_exec.process import execute

__all__ = ["main"]


def main() -> None:
    """Start the command, or say why not and exit with the code of design.md."""
    words = sys.argv[1:]
    if may_need_resolving(words, os.environ, os.getcwd):
        from nemotron_exec.launch import main as launch

        launch(words, os.environ)
    command = words[1:] if words[:1] == ["--"] else words
    try:
        execute(command, job_environment(os.environ))
    except LaunchError as error:
        Messages().error(str(error))
        sys.exit(error.exit_code)
