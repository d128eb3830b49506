"""OmegaConf: a config that the launcher could not replace still finds its artifacts.

A script may load a config that no argument names, build one that says `${art:…}`, or be given an override on which an
artifact depends. Where a hand-off is there, `art` and `manifest` are registered from it when the job imports omegaconf,
and `add`, `mul`, `div` and `max` beside them; a script's own registration wins.

Known: OmegaConf 2.1 to 2.4. Stands down where there is no hand-off with artifacts.
"""

from __future__ import annotations

from .. import handoff
from ..status import INSTALLED, STOOD_DOWN, UNNEEDED, Status

NAME = "resolvers"
MODULE = "omegaconf"


def apply(module):
    """Register the resolvers. Returns a `Status`."""
    if not handoff.read().get("artifacts"):
        return Status(NAME, UNNEEDED, "no artifact was resolved for this process")
    if not hasattr(getattr(module, "OmegaConf", None), "register_new_resolver"):
        return Status(NAME, STOOD_DOWN, "this OmegaConf has no register_new_resolver")
    from .. import resolvers

    resolvers.register_from_launcher(module)
    return Status(NAME, INSTALLED, "")
