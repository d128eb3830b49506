"""Names of the JSON documents that the programs write for scripts. docs/schemas/ has the JSON Schema of each.

The field `schema` of a document holds its name. The number at the end grows when a field is removed or changes its
meaning. A new field changes nothing.
"""

from __future__ import annotations

__all__ = [
    "ADD",
    "DIFF",
    "DOCTOR",
    "DRY_RUN",
    "FLUSH",
    "GC",
    "GRAPH",
    "HOOKS",
    "JOB",
    "JOBS",
    "LS",
    "RESOLVE",
    "SHOW",
    "VERIFY",
]

DOCTOR = "doctor/1"
DRY_RUN = "dry-run/1"
RESOLVE = "resolve/1"
JOBS = "jobs/1"
JOB = "job/1"
LS = "ls/1"
SHOW = "show/1"
ADD = "add/1"
VERIFY = "verify/1"
GC = "gc/1"
DIFF = "diff/1"
GRAPH = "graph/1"
FLUSH = "flush/1"
HOOKS = "hooks/1"
