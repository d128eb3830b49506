"""Holds the state of this process, in one place, with the only hook on fork.

In a forked child, `once` remembers the parent's calls, and each part is made anew; its `inherit` may copy from the
parent's part. A part is not shared as it is: the child has no threads, and a lock that another thread held at the fork
would stay locked.
"""

from __future__ import annotations

import os

__all__ = ["once", "part"]

_parts = {}
_once = {}


def part(kind):
    """The one instance of a class in this process, made when it is first asked for.

    Args:
        kind: A class without arguments. In a forked child a new instance is made, and its method `inherit(self,
            parents)`, if there is one, gets the parent's instance.
    """
    found = _parts.get(kind)
    # If two threads ask at once, both get the same instance.
    return found if found is not None else _parts.setdefault(kind, kind())


def once(*what):
    """True for the first call with these arguments in this process. Calls before a fork count in the child, too."""
    token = object()
    return _once.setdefault(what, token) is token  # if two threads ask at once, one of them gets True


def _after_fork():
    inherited = dict(_parts)
    _parts.clear()
    for kind, parents in inherited.items():
        if hasattr(kind, "inherit"):
            part(kind).inherit(parents)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
