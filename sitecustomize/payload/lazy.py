"""Regular expressions that are compiled when they are first used.

Compiling those of a start that resolves takes 4 ms, and more than half of them are for what that start does not meet.
"""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    pattern = re.compile
else:

    class pattern:  # noqa: N801  # stands for a function
        """What `re.compile` gives, compiled with the first use of a method or an attribute."""

        def __init__(self, text, flags=0):
            self._source = (text, flags)

        def __getattr__(self, name):
            if name.startswith("__"):  # what `copy` and `pickle` look for
                raise AttributeError(name)
            # Kept: the next use finds it as an attribute.
            value = self.__dict__[name] = getattr(re.compile(*self._source), name)
            return value


__all__ = ["pattern"]
