"""Runs in every Python of a job, at interpreter start. It is the only importable name in its directory.

In a job it runs payload/start.py, which installs the import hook. In every process it runs the `sitecustomize` that it
hides. Each start with this file on PYTHONPATH pays for it, above all for loading its definitions. So definitions lie in
other files if they can, and only modules that the interpreter has loaded are used.

Another tool's sitecustomize may run this file without an import: by exec() in a namespace of its own or of the tool, or
as a module of another name. So this code does not rely on `__name__`, on `__file__` or on a global name.
"""


def _nemotron_exec_start():
    import sys

    os = sys.modules["os"]  # site has imported os before this file
    file = sys._getframe().f_code.co_filename
    here = os.path.dirname(file)  # the directory as sys.path has it
    if file != globals().get("__file__"):
        # This file was not imported: the tool that compiled its text may have given it any file name.
        places = [here, os.path.dirname(globals().get("__file__") or "")] + sys.path
        for here in places + os.environ.get("PYTHONPATH", "").split(os.pathsep):
            if here and os.path.isfile(here + "/payload/start.py"):
                break
    parts = []
    hidden = supported = sys.version_info >= (3, 8)
    # The environment at the process's start. A look-up in os.environ, which is written in Python, takes longer.
    environ = sys.modules["posix"].environ
    if supported:
        # The injector's directory stays on sys.path, so that a program can pass sys.path to a child. This entry finds
        # no module in it, and saves a stat(2) for each import, on what may be a shared file system.
        cache = sys.path_importer_cache
        if getattr(cache.get(here), "nemotron_exec", False):
            return  # this file has been run in this process

        def entry(name, target=None):
            if name == "sitecustomize" and getattr(target, "__file__", None) == here + "/sitecustomize.py":
                # importlib.reload(sitecustomize) comes here.
                load = sys.modules["_frozen_importlib_external"].spec_from_file_location
                return load(name, target.__file__)
            return None

        entry.find_spec = entry
        entry.nemotron_exec = True
        cache[here] = entry  # type: ignore[assignment]
        disabled = environ.get(b"NEMOTRON_EXEC_DISABLE")
        # The value that the pages name needs no look at the words for yes and no: reading them takes 0.04 ms.
        if disabled and disabled != b"1" and b"NEMOTRON_EXEC_ACTIVE" in environ:
            flags = {"__name__": "flags"}
            file = here + "/payload/flags.py"
            exec(sys.modules["_frozen_importlib_external"].SourceFileLoader("flags", file).get_code("flags"), flags)
            disabled = flags["is_on"](disabled.decode("latin-1"))  # type: ignore[operator]
        if b"NEMOTRON_EXEC_ACTIVE" in environ and not disabled:
            parts.append("start")
        # Look for another sitecustomize. With finders of other tools it may be anywhere. Without them, test the file
        # names that an import tries: a failing import would list every directory of sys.path.
        hidden = len(sys.path_hooks) > 2 or len(sys.meta_path) > 3
        names = ["sitecustomize.py", "sitecustomize.pyc", "sitecustomize"]
        for suffix in sys.modules["_imp"].extension_suffixes():
            names.append("sitecustomize" + suffix)
        for directory in sys.path:
            finder = cache.get(directory, directory)
            if finder is None or directory == here or directory[-12:] == "/lib-dynload":
                # The interpreter has found no directory there, or it has only the interpreter's extension modules.
                continue
            # The interpreter has listed the directory for its first import, a moment ago.
            listed = getattr(finder, "_path_cache", None)
            if listed:
                hidden = hidden or not listed.isdisjoint(names)
            elif directory[:1] != "/" or not os.access(directory + "/.", 0):
                hidden = True
            else:
                for name in names:
                    hidden = hidden or os.access(directory + "/" + name, 0)
    if hidden or not supported:
        parts.append("chain")
    for name in parts:
        path = here + "/payload/" + name + ".py"
        try:
            if supported:
                code = sys.modules["_frozen_importlib_external"].SourceFileLoader(name, path).get_code(name)
            else:
                with open(path) as source:
                    code = compile(source.read(), path, "exec")
        except Exception as error:
            if sys.stderr is not None:
                sys.stderr.write("nemotron-exec: warning: could not load %s: %s\n" % (path, error))
            if environ.get(b"NEMOTRON_EXEC_STRICT") == b"1":
                # Only SystemExit ends the process here: site prints any other exception and goes on.
                raise SystemExit(1)  # noqa: B904 (this file also parses under Python 2)
            continue
        exec(code, {"__name__": "sitecustomize", "__file__": path})


_nemotron_exec_start()
