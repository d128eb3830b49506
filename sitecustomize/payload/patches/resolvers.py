"""OmegaConf: resolves artifacts in configs that the launcher could not replace.

A script may load a config that no argument names, build a config with `${art:…}`, or get an override on which an
artifact depends. With a hand-off, the patch registers `art`, `manifest`, `add`, `mul`, `div` and `max` when the job
imports omegaconf. A script's own registration wins.

Without a hand-off it registers only `art`, whose error says that no config was resolved and how to name one.

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
    """Look for NVIDIA's kit in the script whenever it loads a config: by then the script's functions are defined."""
    original = config.load

    @functools.wraps(original)
    def load(*args, **kwargs):
        kit.adopt_main()
        return original(*args, **kwargs)

    config.load = staticmethod(load)
