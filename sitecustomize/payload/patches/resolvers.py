"""OmegaConf: a config that the launcher could not replace still finds its artifacts.

A script may load a config that no argument names, build a config with `${art:…}`, or be given an override on which an
artifact depends. Where a hand-off is there, `art` and `manifest` are registered from it when the job imports omegaconf,
and `add`, `mul`, `div` and `max` beside them; a script's own registration wins.

Where there is none, `art` is registered all the same, and says that no config was resolved and how to name one.

Known: OmegaConf 2.1 to 2.4.
"""

from __future__ import annotations

import functools

from ..status import INSTALLED, STOOD_DOWN, UNNEEDED, Status
from . import kit

NAME = "resolvers"
MODULE = "omegaconf"


def apply(module):
    """Register the resolvers. Returns a `Status`."""
    if not hasattr(getattr(module, "OmegaConf", None), "register_new_resolver"):
        return Status(NAME, STOOD_DOWN, "this OmegaConf has no register_new_resolver")
    from .. import resolvers

    if not resolvers.register_from_launcher(module):
        return Status(NAME, UNNEEDED, "no artifact was resolved for this process")
    _look_at_main(module.OmegaConf)
    return Status(NAME, INSTALLED, "")


def _look_at_main(config):
    """Each load of a config looks for NVIDIA's kit in the script: all its functions are defined by then."""
    original = config.load

    @functools.wraps(original)
    def load(*args, **kwargs):
        kit.adopt_main()
        return original(*args, **kwargs)

    config.load = staticmethod(load)
