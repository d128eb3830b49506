"""A completed checkpoint as the fields of a manifest."""

from __future__ import annotations

import collections
import datetime
import functools
import os
import re
import sys

from .. import frameworks, job, notice
from ..manifest import names
from ..paths import host as mountinfo
from ..paths.absolute import absolute
from ..paths.mountinfo import file_system
from . import outbox, process, run_record, same_save, script_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..documents import Entry
    from .settings import Settings

__all__ = []

Completed = collections.namedtuple(
    "Completed",
    [
        "framework",  # name of a row of frameworks.py; "script" where the script itself says it
        "versions",  # {"megatron-bridge": "0.3.1", "torch": …}
        "save_dir",  # as the job names it
        "checkpoint_path",  # as the job names it
        "number",  # iteration or step, from the path; None if the path has none
        "alias",  # iter_0000010, step_10
        "path_is_checkpoint",  # `path` of the artifact is the checkpoint itself, not the save directory
        "transient",  # the framework plans to delete it soon
        "best",  # whether it is the best so far; None without a metric
        "extra",  # further metadata; its `format` wins
        "name",  # of the artifact; None for `run.publish`, else the save directory's
        "type",  # of the artifact
    ],
    defaults=(None, "model"),
)


def is_uri(path):
    """Whether a path is `scheme://…`: recorded as it is, never resolved, translated, looked at or synced."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.\-]*://", path) is not None


def number_in(path):
    """The number at the end of a checkpoint's name (`iter_0000010` is 10), or None."""
    match = re.search(r"_(\d+)\Z", os.path.basename(path.rstrip("/")))
    return int(match.group(1)) if match else None


def artifact_name(save_dir):
    """The artifact's name where the config gives none: the stem of the save directory, as Megatron-Bridge takes it."""
    parts = [part for part in re.split(r"/+", save_dir.rstrip("/")) if part]
    if len(parts) > 1 and parts[-1] == "non_persistent":
        parts.pop()  # Megatron-Bridge's directory for transient checkpoints, below the save directory
    base = parts[-1] if parts else ""
    stem = os.path.splitext(base)[0] if not base.startswith(".") else base
    if not stem:
        return "checkpoint"
    name = names.safe_name(stem)
    if not names.is_recognizable(name, stem) and job.once("name of", stem):
        notice.warning("checkpoints of %s are registered as %s: name them with run.publish" % (save_dir, name))
    return name


def published_name(publish):
    """`run.publish` as `(name, alias or None)`; None where it is no name that a store would take."""
    name, _, alias = str(publish).partition(":")
    try:
        return names.check_name(name), alias or None
    except names.StoreError:
        return None


@functools.lru_cache(maxsize=None)
def versions_of(name):
    """Versions of the framework of that name (frameworks.py), of its packages, of torch and of wandb."""
    row = frameworks.named(name)
    return versions(row.distribution, dict(row.packages, torch="torch", wandb="wandb"))


def versions(framework, modules):
    """Versions of the framework and of those `modules` that this process has imported.

    Args:
        framework: Name of the framework's distribution.
        modules: `{distribution: module}`.
    """
    # Read `__version__` of imported modules: the training thread need not read metadata from disk.
    found = {name: getattr(sys.modules.get(module), "__version__", None) for name, module in modules.items()}
    found = {name: str(version) for name, version in found.items() if version is not None}
    if framework not in found:
        try:
            import importlib.metadata

            found[framework] = importlib.metadata.version(framework)
        except Exception as error:
            notice.debug("no version of %s: %r" % (framework, error))
    return found


def describe(completed: Completed, config: Settings, renamed_from: str | None = None) -> Entry:
    """The outbox entry of a checkpoint, with everything that a store will record. Arguments as for `announce`."""
    uri = is_uri(completed.save_dir)
    save_dir = completed.save_dir if uri else absolute(completed.save_dir)
    local = completed.checkpoint_path if is_uri(completed.checkpoint_path) else absolute(completed.checkpoint_path)
    host_save_dir = save_dir if uri else mountinfo.to_host(save_dir)
    host = _below(host_save_dir, save_dir, local)
    path = host if completed.path_is_checkpoint else host_save_dir
    name, aliases = _names(completed, save_dir, config)
    row = frameworks.named(completed.framework)
    metadata = {
        "iteration": completed.number,
        "step": completed.number,
        "absolute_path": path,
        "checkpoint_path": host,
        "framework": completed.framework,
        "framework_version": completed.versions.get(row.distribution if row else completed.framework),
        "versions": completed.versions,
        "transient": completed.transient,
        "job": config.job or None,
        "run_record": run_record.path_for(config, save_dir, host_save_dir),
        "format": row.format if row else completed.framework,
    }
    metadata.update(exports(row, renamed_from or local, host))
    metadata.update(completed.extra)
    entry: Entry = {
        "event": outbox.new_event(),
        "created_at": datetime.datetime.now(datetime.timezone.utc).isoformat(),
        "store": config.store,
        "name": name,
        "type": completed.type,
        "path": path,
        "checkpoint_path": host,
        "local_path": local,
        "save_dir": save_dir,
        "iteration": completed.number,
        "aliases": aliases,
        "latest": not completed.transient,
        "gone": False,
        "metadata": {key: value for key, value in metadata.items() if value is not None},
        "used_artifacts": config.used_artifacts,
        "producer": config.job or "local",
        "process": process.here(),
        "wandb": _wandb_target(completed, name, aliases, config),
    }
    if not uri:
        entry["file_system"] = file_system(save_dir)
    if renamed_from is not None:
        entry["renamed_from"] = os.path.basename(absolute(renamed_from))
    same_save.mark(entry)
    return entry


def format_of(path):
    """`hf` or `peft` for a directory that `from_pretrained` reads, else the file's suffix, else `script`."""
    if os.path.isfile(os.path.join(path, "config.json")):
        return "hf"
    if os.path.isfile(os.path.join(path, "adapter_config.json")):
        return "peft"
    suffix = os.path.splitext(path)[1] if os.path.isfile(path) else ""
    return suffix[1:] or "script"


def exports(row, local, host):
    """Metadata of the further formats in a checkpoint, beside the framework's own; {} where there are none.

    Args:
        row: The framework (frameworks.py); None for none.
        local: The checkpoint, as this process names it; a URI is not looked into.
        host: The same, as the host names it.
    """
    found = {}
    if row is None or is_uri(local):
        return found
    for suffix, (witness, key) in row.exports.items():
        if os.path.isfile(os.path.join(local, witness)):
            found[key] = "%s/%s" % (host, os.path.dirname(witness))
            found["format"] = "%s+%s" % (found.get("format", row.format), suffix)
    return found


def _below(host_save_dir, save_dir, path):
    """The host's name of a path, looked up only once where it lies in the save directory."""
    if is_uri(path):
        return path
    if path.startswith(save_dir + "/"):
        return host_save_dir.rstrip("/") + path[len(save_dir) :]
    return mountinfo.to_host(path)


def active_run():
    """The W&B run of this process, or None. Never imports wandb."""
    wandb = sys.modules.get("wandb")
    return getattr(wandb, "run", None)


def _names(completed, save_dir, config):
    aliases = [completed.alias] if completed.alias else []
    if completed.best:
        aliases.append("best")
    if completed.name:
        return completed.name, aliases
    publish = config.publish or script_name.read(completed.framework)
    published = published_name(publish) if publish else None
    if publish and published is None:
        said = "run.publish is" if config.publish else "the script names its artifact"
        notice.warning("%s %r, which is no artifact name: the save directory's is used" % (said, publish))
    if published is None:
        return artifact_name(save_dir), aliases
    name, alias = published
    return name, aliases + [alias] if alias and alias != "latest" else aliases


def _wandb_target(completed, name, aliases, config):
    if completed.transient:
        return None
    run = active_run()
    if run is None and not config.sends_to_wandb:
        return None
    return {
        "name": names.wandb_name(name),
        "published": bool(config.publish or completed.name or script_name.read(completed.framework)),
        "aliases": aliases + ["latest"],
        "project": getattr(run, "project", None) or config.project,
        "entity": getattr(run, "entity", None) or config.entity,
        "run": getattr(run, "id", None),
    }
