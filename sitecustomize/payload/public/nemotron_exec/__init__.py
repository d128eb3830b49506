"""The Python API of nemotron-exec, in a job whose environment does not have the package itself."""


def __getattr__(name):
    if name == "record_checkpoint":
        from _nemotron_exec.api.checkpoint import record_checkpoint

        return record_checkpoint
    raise AttributeError("module %r has no attribute %r" % (__name__, name))
