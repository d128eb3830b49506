"""What nemotron-exec runs in every Python of a job, at interpreter start. The only importable name on our PYTHONPATH.

In a job it runs payload/start.py, which installs the import hook; and everywhere the `sitecustomize` that it hides.
Who has us on PYTHONPATH pays for this file at every start, and most of all for loading what is defined in it: so
nothing is that can stand in another file, and nothing is imported that the interpreter has not loaded already.
"""

import sys


def _start(os):
    here = os.path.dirname(__file__)  # as it stands on sys.path
    parts = []
    hidden = supported = sys.version_info >= (3, 8)
    # What the process was started with; os.environ, which is written in Python, takes longer to say no.
    environ = sys.modules["posix"].environ
    if supported:
        if b"NEMOTRON_EXEC_ACTIVE" in environ and environ.get(b"NEMOTRON_EXEC_DISABLE") != b"1":
            parts.append("start")
        # Our entry stays on sys.path, for those who hand that on to a child; but it offers no name once this file has
        # been loaded, and costs no stat(2) for each import of each process, on what may be a shared file system.
        # (Whatever is built in has been found before anybody asks there.)
        cache = sys.path_importer_cache
        cache[here] = sys.modules["_frozen_importlib"].BuiltinImporter
        # Is there another sitecustomize? Where others have finders it may be anywhere. Else it is one of the files that
        # an import looks for; one that fails would list every directory of sys.path.
        hidden = len(sys.path_hooks) > 2 or len(sys.meta_path) > 3
        names = ["sitecustomize.py", "sitecustomize.pyc", "sitecustomize"]
        for suffix in sys.modules["_imp"].extension_suffixes():
            names.append("sitecustomize" + suffix)
        for entry in sys.path:
            finder = cache.get(entry, entry)
            if finder is None or entry == here or entry[-12:] == "/lib-dynload":
                # There is nothing, as the interpreter has seen, or nothing but its own extension modules.
                continue
            # What the interpreter has listed a moment ago, for its first import.
            listed = getattr(finder, "_path_cache", None)
            if listed:
                hidden = hidden or not listed.isdisjoint(names)
            elif entry[:1] != "/" or not os.access(entry + "/.", 0):
                hidden = True
            else:
                for name in names:
                    hidden = hidden or os.access(entry + "/" + name, 0)
    if hidden or not supported:
        parts.append("chain")
    for name in parts:
        path = here + "/payload/" + name + ".py"
        try:
            if supported:
                code = sys.modules["_frozen_importlib_external"].SourceFileLoader(name, path).get_code(name)
            else:
                with open(path) as file:
                    code = compile(file.read(), path, "exec")
        except Exception as error:
            sys.stderr.write("nemotron-exec: warning: could not load %s: %s\n" % (path, error))
            if environ.get(b"NEMOTRON_EXEC_STRICT") == b"1":
                # site would print any other exception and go on.
                raise SystemExit(1)  # noqa: B904 (this file also parses under Python 2)
            continue
        exec(code, globals())


# site has imported os before it imports us.
_start(sys.modules["os"])
