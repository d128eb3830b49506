"""The Python API of nemotron-exec, in a job whose environment does not have the package itself."""
