"""Regular expressions that are compiled when they are first used.

A start that resolves would compile for 4 ms, and it does not use more than half of the expressions.
"""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    pattern = re.compile
else:

    class pattern:  # noqa: N801  # named like the function that it replaces
        """Acts as the result of `re.compile`, and compiles at the first use of a method or an attribute."""

        def __init__(self, text, flags=0):
            self._source = (text, flags)

        def __getattr__(self, name):
            if name.startswith("__"):  # `copy` and `pickle` look for such names
                raise AttributeError(name)
            # Store the value: the next use finds it as an attribute.
            value = self.__dict__[name] = getattr(re.compile(*self._source), name)
            return value


__all__ = ["pattern"]
