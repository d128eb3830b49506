"""What this process of the job has begun, said and found: one place, and the only hook on fork.

A forked child goes on with what its parent has said. Of a part it gets what the part's `inherit` makes of the parent's:
a lock that another thread held at the fork is held for ever in the child, and threads do not live on there.
"""

from __future__ import annotations

import os

__all__ = ["once", "part"]

_parts = {}
_once = {}


def part(kind):
    """The one instance of a class in this process, made when it is first asked for.

    Args:
        kind: A class without arguments. With a method `inherit(self, parents)` a forked child's instance is told of its
            parent's at the fork; without one the child's is made anew.
    """
    found = _parts.get(kind)
    # Of two threads that ask at once, both get the first one's.
    return found if found is not None else _parts.setdefault(kind, kind())


def once(*what):
    """True the first time that this process asks this. What it asked before a fork counts in the child, too."""
    token = object()
    return _once.setdefault(what, token) is token  # of two threads that ask at once, one is the first


def _after_fork():
    inherited = dict(_parts)
    _parts.clear()
    for kind, parents in inherited.items():
        if hasattr(kind, "inherit"):
            part(kind).inherit(parents)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
