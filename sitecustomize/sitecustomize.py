"""What nemotron-exec runs in every Python of a job, at interpreter start. The only importable name in its directory.

In a job it runs payload/start.py, which installs the import hook; and everywhere the `sitecustomize` that it hides.
Each start with this file on PYTHONPATH pays for it, and most of all for loading its definitions: so nothing is
defined here that can stand in another file, and nothing is imported that the interpreter has not loaded already.

Another tool's sitecustomize may run this file without an import: by exec() in a namespace of its own or of the tool,
or as a module of another name. So nothing here relies on `__name__`, on `__file__` or on a global name.
"""


def _nemotron_exec_start():
    import sys

    os = sys.modules["os"]  # site has imported it before it imports this file
    file = sys._getframe().f_code.co_filename
    here = os.path.dirname(file)  # as it stands on sys.path
    if file != globals().get("__file__"):
        # Not run by an import: the tool that compiled the text may have given it any file name.
        places = [here, os.path.dirname(globals().get("__file__") or "")] + sys.path
        for here in places + os.environ.get("PYTHONPATH", "").split(os.pathsep):
            if here and os.path.isfile(here + "/payload/start.py"):
                break
    parts = []
    hidden = supported = sys.version_info >= (3, 8)
    # What the process was started with; os.environ, which is written in Python, takes longer to say no.
    environ = sys.modules["posix"].environ
    if supported:
        # Our entry stays on sys.path, for those who hand that on to a child; but it offers no name once this file has
        # been loaded, and costs no stat(2) for each import of each process, on what may be a shared file system.
        cache = sys.path_importer_cache
        if getattr(cache.get(here), "nemotron_exec", False):
            return  # this file has been run in this process

        def entry(name, target=None):
            if name == "sitecustomize" and getattr(target, "__file__", None) == here + "/sitecustomize.py":
                # For importlib.reload(sitecustomize).
                load = sys.modules["_frozen_importlib_external"].spec_from_file_location
                return load(name, target.__file__)
            return None

        entry.find_spec = entry
        entry.nemotron_exec = True
        cache[here] = entry  # type: ignore[assignment]
        disabled = environ.get(b"NEMOTRON_EXEC_DISABLE")
        if disabled and b"NEMOTRON_EXEC_ACTIVE" in environ:
            flags = {"__name__": "flags"}
            file = here + "/payload/flags.py"
            exec(sys.modules["_frozen_importlib_external"].SourceFileLoader("flags", file).get_code("flags"), flags)
            disabled = flags["is_on"](disabled.decode("latin-1"))  # type: ignore[operator]
        if b"NEMOTRON_EXEC_ACTIVE" in environ and not disabled:
            parts.append("start")
        # Is there another sitecustomize? Where others have finders it may be anywhere. Else it is one of the files that
        # an import looks for; an import that fails would list every directory of sys.path.
        hidden = len(sys.path_hooks) > 2 or len(sys.meta_path) > 3
        names = ["sitecustomize.py", "sitecustomize.pyc", "sitecustomize"]
        for suffix in sys.modules["_imp"].extension_suffixes():
            names.append("sitecustomize" + suffix)
        for directory in sys.path:
            finder = cache.get(directory, directory)
            if finder is None or directory == here or directory[-12:] == "/lib-dynload":
                # There is nothing, as the interpreter has seen, or nothing but its own extension modules.
                continue
            # What the interpreter has listed a moment ago, for its first import.
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
                # site would print any other exception and go on.
                raise SystemExit(1)  # noqa: B904 (this file also parses under Python 2)
            continue
        exec(code, {"__name__": "sitecustomize", "__file__": path})


_nemotron_exec_start()
