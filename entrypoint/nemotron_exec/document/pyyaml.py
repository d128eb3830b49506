"""PyYAML, imported so that its regular expressions are compiled on their first use.

libyaml replaces the Python parser, so most of its expressions are never used. Compiling them would take 6 ms of a
start.
"""

from __future__ import annotations

import re

from nemotron_exec.sitecustomize.payload.lazy import pattern

# The launcher has no second thread yet. In a program with threads, a `re.compile` of another thread would become lazy,
# too.
_compile = re.compile
re.compile = pattern
try:
    import yaml
finally:
    re.compile = _compile

__all__ = ["yaml"]
