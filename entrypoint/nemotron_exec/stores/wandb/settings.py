"""The settings of this job's W&B client: server, entity, project, mode; read as the client reads them.

The source is wandb/sdk/wandb_setup.py and wandb_settings.py (0.31). A variable wins over `wandb/settings` of the
working directory, and that over `settings` of WANDB_CONFIG_DIR or ~/.config/wandb. Nothing here imports wandb.
"""

from __future__ import annotations

import os

from nemotron_exec.environment import home_directory
from nemotron_exec.frozen import dataclass
from nemotron_exec.sitecustomize.payload.paths.absolute import working_directory

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["OFFLINE", "Setting", "find_setting", "run_mode", "wandb_base_url"]

OFFLINE = ("offline", "disabled", "dryrun")
"""Modes in which the client sends nothing."""

_SAAS = "https://api.wandb.ai"


@dataclass(frozen=True)
class Setting:
    """A value and its source.

    Attributes:
        value: The text, never empty.
        source: The variable or the file, for messages.
    """

    value: str
    source: str


def find_setting(environ: Mapping[str, str], name: str) -> Setting | None:
    """A setting of the client, such as `project`; None where no variable and no file has it."""
    variable = f"WANDB_{name.upper()}"
    if value := environ.get(variable):
        return Setting(value, variable)
    for path in settings_files(environ):
        if value := _read(path).get(name):
            return Setting(value, path)
    return None


def wandb_base_url(environ: Mapping[str, str]) -> str:
    """The address of the server: the setting `base_url`, else the hosted service; without a trailing slash."""
    found = find_setting(environ, "base_url")
    return (found.value if found else _SAAS).rstrip("/")


def run_mode(environ: Mapping[str, str]) -> Setting:
    """The mode of a run of this job, in lower case; "online" where no setting names another."""
    found = find_setting(environ, "mode")
    return Setting(found.value.lower(), found.source) if found else Setting("online", "default")


def settings_files(environ: Mapping[str, str]) -> Iterator[str]:
    """The settings files, the winning one first. WANDB_DIR does not count: the client reads the files before it."""
    here = working_directory()
    yield os.path.join(here, ".wandb" if os.path.exists(os.path.join(here, ".wandb")) else "wandb", "settings")
    home = home_directory(environ)
    config = environ.get("WANDB_CONFIG_DIR")
    if config and config.startswith("~/") and home:
        config = home + config[1:]
    if config or home:
        yield os.path.join(config or os.path.join(home or "", ".config", "wandb"), "settings")


def _read(path: str) -> Mapping[str, str]:
    if not os.path.exists(path):
        return {}
    import configparser

    parser = configparser.ConfigParser()
    try:
        parser.read(path)
        return dict(parser.items("default"))
    except (OSError, configparser.Error, UnicodeDecodeError):
        return {}  # the client ignores it, too, and reports it when the run starts
