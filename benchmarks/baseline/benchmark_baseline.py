"""The floor of every launcher written in Python: a console script that only becomes the command."""

import os
import sys


def execute():
    """Become the command."""
    os.execvp(sys.argv[1], sys.argv[1:])
