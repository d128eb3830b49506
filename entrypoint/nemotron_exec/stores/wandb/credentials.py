"""Finds the API key where the W&B client takes it."""

from __future__ import annotations

import os

from nemotron_exec.environment import home_directory
from nemotron_exec.frozen import dataclass, field
from nemotron_exec.stores.wandb.settings import find_setting, wandb_base_url

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LOGIN", "Credentials", "find_credentials"]

# Both names of the hosted service: newer clients log in to the first (wandb/sdk/lib/urls.py, FORGE_HOSTS).
_HOSTED = ["api.forge.coreweave.com", "api.wandb.ai"]

LOGIN = "Set WANDB_API_KEY, add the key to ~/.netrc, or run `wandb login`"


@dataclass(frozen=True)
class Credentials:
    """The way in which this process would log in to W&B.

    Attributes:
        source: Source of the key, for messages.
        key: The key; None for an identity token, which wandb itself exchanges. It is never shown.
    """

    source: str
    key: str | None = field(default=None, repr=False)


def find_credentials(environ: Mapping[str, str]) -> Credentials | None:
    """The key that wandb would use: from the environment, else from netrc, else from wandb's settings files.

    The source is wandb/sdk/lib/wbauth (0.31). The user is not asked for a key.
    """
    if key := environ.get("WANDB_API_KEY"):
        return Credentials("WANDB_API_KEY", key)
    if environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return Credentials("WANDB_IDENTITY_TOKEN_FILE")
    base_url = wandb_base_url(environ)
    for path in _netrc_files(environ):
        if not os.path.exists(path):
            continue
        import netrc
        from urllib.parse import urlsplit

        try:
            entries = netrc.netrc(path)
        except (OSError, netrc.NetrcParseError):
            continue
        host = urlsplit(base_url)
        # wandb looks for host:port. Older versions leave it to requests, which looks for the host.
        names = [host.netloc, host.hostname or ""]
        if host.netloc in _HOSTED:
            names += _HOSTED
        for name in names:
            found = entries.authenticators(name)
            if found and found[2]:
                return Credentials(path, found[2])
    # This finds a settings file only: the variable has been tried above.
    if setting := find_setting(environ, "api_key"):
        return Credentials(setting.source, setting.value)
    return None


def _home(environ: Mapping[str, str]) -> str:
    return home_directory(environ) or "/nonexistent"


def _netrc_files(environ: Mapping[str, str]) -> list[str]:
    if named := environ.get("NETRC"):
        return [named.replace("~", _home(environ), 1) if named.startswith("~") else named]
    return [os.path.join(_home(environ), name) for name in (".netrc", "_netrc")]
