"""Puts the bundle's packages for this interpreter on sys.path and runs one of its commands.

python -IS lib/start.py nemotron-exec|nemotron-artifact|python ARGS...
"""

import os
import sys

LIB = os.path.dirname(os.path.abspath(__file__))
COMMANDS = {"nemotron-exec": "nemotron_exec.cli", "nemotron-artifact": "nemotron_exec.artifact_cli.main"}


def packages():
    """The directories with the packages for every Python, and with those for this Python."""
    exact = os.path.join(LIB, "cp%d%d" % sys.version_info[:2])
    # A Python that is newer than the bundle still gets the packages that are not tied to a version.
    return [os.path.join(LIB, "any")] + ([exact] if os.path.isdir(exact) else [])


def main():
    """Runs the command that the first argument names."""
    name, words = sys.argv[1], sys.argv[2:]
    sys.path[0:0] = packages()
    # The launcher starts sys.executable and names it to the job, so it must be a Python that finds these packages.
    sys.executable = os.path.join(os.path.dirname(LIB), "bin", "python")
    if name == "python":
        return run_as_python(words)
    sys.argv = [os.path.join(os.path.dirname(LIB), "bin", name)] + words
    module = __import__(COMMANDS.get(name, COMMANDS["nemotron-exec"]), fromlist=["main"])
    return module.main()


def run_as_python(words):
    """Acts as `python [-flags] -m MODULE …`, `-c CODE …` or `FILE …`, with the bundle's packages."""
    import runpy

    while words and words[0].startswith("-") and words[0] not in ("-m", "-c"):
        words = words[1:]
    if not words:
        sys.exit("nemotron-exec: the bundle's python runs -m MODULE, -c CODE or a file")
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif words[0] == "-c":
        sys.argv = ["-c"] + words[2:]
        exec(compile(words[1], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main())
