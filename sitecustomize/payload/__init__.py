"""The injector's body, served in the job as `_nemotron_exec`: Python 3.8, standard library only."""
