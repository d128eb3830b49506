"""Which store a job uses, and whether it has a W&B key: known without importing wandb and without a request."""

from __future__ import annotations

import os

from nemotron_exec.errors import LaunchError
from nemotron_exec.frozen import dataclass, field

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LOGIN", "Credentials", "choose_backend", "find_credentials", "wandb_base_url"]

LOGIN = "Set WANDB_API_KEY, add the key to ~/.netrc, or run `wandb login`"
_SAAS = "https://api.wandb.ai"


@dataclass(frozen=True)
class Credentials:
    """How this process would log in to W&B.

    Attributes:
        source: Where the key was found, for messages.
        key: The key; None for an identity token, which wandb itself exchanges. Never shown.
    """

    source: str
    key: str | None = field(default=None, repr=False)


def choose_backend(requested: str, environ: Mapping[str, str], project: str | None, *, key: bool) -> tuple[str, str]:
    """Decide between W&B and the manifest store (design.md, `--backend`).

    Args:
        requested: "auto", "wandb" or "manifest".
        environ: `WANDB_PROJECT`, `WANDB_MODE` and `WANDB_DISABLED` are looked at.
        project: From the config or env.toml.
        key: Whether `find_credentials` found any.

    Returns:
        "wandb" or "manifest", and a reason for people.

    Raises:
        LaunchError: `--backend wandb` without a key.
    """
    if requested == "manifest":
        return "manifest", "--backend manifest"
    mode = environ.get("WANDB_MODE", "").lower()
    if requested == "wandb":
        if not key:
            raise LaunchError("to look artifacts up in W&B (--backend wandb)", "there is no W&B API key", LOGIN)
        return "wandb", "--backend wandb"
    if mode in ("offline", "disabled", "dryrun"):
        return "manifest", f"WANDB_MODE={mode}, so artifacts are looked up in the manifest store"
    if not (project or environ.get("WANDB_PROJECT")):
        return "manifest", "no W&B project is configured, so artifacts are looked up in the manifest store"
    if not key:
        return "manifest", "there is no W&B API key, so artifacts are looked up in the manifest store"
    return "wandb", "a W&B project and a key are configured"


def wandb_base_url(environ: Mapping[str, str]) -> str:
    """The server: `WANDB_BASE_URL`, wandb's settings files, the hosted service; without a trailing slash."""
    return (environ.get("WANDB_BASE_URL") or _setting(environ, "base_url") or _SAAS).rstrip("/")


def find_credentials(environ: Mapping[str, str]) -> Credentials | None:
    """The key that wandb would use: the environment's, then netrc's, then that of wandb's settings files.

    Source: wandb/sdk/lib/wbauth (0.31). Nothing is asked for interactively.
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
        # wandb looks for host:port, requests (which older versions ask) for the host.
        for name in (host.netloc, host.hostname or ""):
            found = entries.authenticators(name)
            if found and found[2]:
                return Credentials(path, found[2])
    if key := _setting(environ, "api_key"):
        return Credentials("wandb's settings file", key)
    return None


def _home(environ: Mapping[str, str]) -> str:
    return environ.get("HOME") or os.path.expanduser("~")


def _netrc_files(environ: Mapping[str, str]) -> list[str]:
    if named := environ.get("NETRC"):
        return [named.replace("~", _home(environ), 1) if named.startswith("~") else named]
    return [os.path.join(_home(environ), name) for name in (".netrc", "_netrc")]


def _setting(environ: Mapping[str, str], name: str) -> str | None:
    """A value of wandb's settings files: the working directory's wins over the user's."""
    config = environ.get("WANDB_CONFIG_DIR") or os.path.join(_home(environ), ".config", "wandb")
    workspace = os.path.join(environ.get("WANDB_DIR") or os.getcwd(), "wandb")
    for directory in (workspace, config):
        if not os.path.exists(os.path.join(directory, "settings")):
            continue
        import configparser

        parser = configparser.ConfigParser(interpolation=None)
        try:
            parser.read(os.path.join(directory, "settings"))
            if found := parser.get("default", name, fallback=None):
                return found
        except (OSError, configparser.Error, UnicodeDecodeError):
            continue
    return None
