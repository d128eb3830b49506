"""The part of sitecustomize.py that runs the sitecustomize which it hides; parses under Python 2, too."""

import sys


def _chain():
    """Run it as the interpreter would have run it; its errors are its own."""
    here = sys.modules["os"].path.dirname(__file__)
    ours = sys.modules.pop("sitecustomize", None)
    path = sys.path
    at = [index for index, entry in enumerate(path) if entry == here]
    path[:] = [entry for entry in path if entry != here]
    try:
        __import__("sitecustomize")
    except ImportError as error:
        # Python 2 has only the message.
        if getattr(error, "name", str(error).rpartition(" ")[2]) != "sitecustomize":
            raise
        if ours is not None:
            sys.modules["sitecustomize"] = ours
    finally:
        for index in at:
            path.insert(index, here)


_chain()
