"""PyYAML, whose regular expressions are compiled when they are first used.

Its parser in Python, for which libyaml's stands in, would take 6 ms of a start for expressions that nothing asks.
"""

from __future__ import annotations

import re

from nemotron_exec.sitecustomize.payload.lazy import pattern

# The launcher has no second thread yet. In a program that has, and that calls `re.compile` meanwhile, its expression
# becomes a lazy one, too.
_compile = re.compile
re.compile = pattern
try:
    import yaml
finally:
    re.compile = _compile

__all__ = ["yaml"]
