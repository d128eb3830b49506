"""`python -m nemotron_exec` is `nemotron-exec`."""

from nemotron_exec.cli import main

main()
