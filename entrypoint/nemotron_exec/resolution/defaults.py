"""Values that a config leaves out: store, W&B project and entity, from env.toml and the environment."""

from __future__ import annotations

from nemotron_exec.environment import default_store, homeless
from nemotron_exec.sitecustomize.payload.paths.absolute import user_path, working_directory

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Mapping

    from nemotron_exec.config.config import Config
    from nemotron_exec.config.env_toml import EnvToml
    from nemotron_exec.options import Options

__all__ = ["choose_store", "default_wandb", "load_env_toml", "store_root", "tags_of", "wandb_of", "wandb_variables"]


def load_env_toml(chosen: Options, environ: Mapping[str, str]) -> EnvToml:
    """The team's env.toml; an empty one if there is none."""
    from nemotron_exec.config.env_toml import find_env_toml, read_env_toml

    return read_env_toml(chosen.env_file or find_env_toml(working_directory(), environ), chosen.run)


def choose_store(chosen: Options, environ: Mapping[str, str], env_toml: EnvToml, config: Config | None) -> str:
    """Root of the manifest store, from option, config, env.toml, environment or default, in this order.

    Raises:
        LaunchError: No source names a root, and there is no home directory for the default.
    """
    root = (
        chosen.store or (config.artifacts_root if config else None) or env_toml.artifacts_root or default_store(environ)
    )
    if root is None:
        raise homeless("to find the manifest store")
    return root if "://" in root else str(user_path(root, environ))


def store_root(chosen: Options, environ: Mapping[str, str]) -> str:
    """Root of the manifest store if no config names another."""
    return choose_store(chosen, environ, load_env_toml(chosen, environ), None)


_WANDB = ("project", "entity")


def default_wandb(env_toml: EnvToml, environ: Mapping[str, str]) -> dict[str, str]:
    """The values for `run.wandb` that a config leaves out: from env.toml, then from the client's settings."""
    from nemotron_exec.stores.wandb.settings import find_setting

    values: dict[str, object] = {}
    for name in _WANDB:
        setting = find_setting(environ, name)
        values[name] = env_toml.wandb.get(name) or (setting.value if setting else None)
    return {name: value for name, value in values.items() if isinstance(value, str) and value}


def tags_of(config: Config) -> list[str]:
    """The plain tags in the config's `run.wandb.tags`. The job's run gets them."""
    section = config.run.get("wandb")
    said = section.get("tags") if isinstance(section, dict) else None
    said = [said] if isinstance(said, str) else said if isinstance(said, list) else []
    return [str(tag) for tag in said if isinstance(tag, (str, int)) and "${" not in str(tag)]


def wandb_of(config: Config) -> dict[str, str]:
    """The keys of the config's `run.wandb` that are plain text."""
    section = config.run.get("wandb")
    values = section if isinstance(section, dict) else {}
    return {name: values[name] for name in _WANDB if isinstance(values.get(name), str) and "${" not in values[name]}


def wandb_variables(wandb: Mapping[str, str]) -> dict[str, str]:
    """The variables of the W&B client for a project and an entity."""
    return {f"WANDB_{name.upper()}": value for name, value in wandb.items()}
