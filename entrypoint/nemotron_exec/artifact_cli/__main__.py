"""`python -m nemotron_exec.artifact_cli` is nemotron-artifact."""

from nemotron_exec.artifact_cli.main import main

if __name__ == "__main__":
    main()
