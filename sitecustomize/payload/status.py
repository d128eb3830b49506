"""The state of a patch, for `--doctor` and the line at start."""

from __future__ import annotations

import collections

INSTALLED = "installed"
WAITING = "waiting"
STOOD_DOWN = "stood down"
UNNEEDED = "not needed"

Status = collections.namedtuple("Status", ["patch", "state", "reason"])
"""`patch`: its name, as in NEMOTRON_EXEC_DISABLED_PATCHES; `state`: one of the four; `reason`: "" if installed."""
