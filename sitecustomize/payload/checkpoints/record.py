"""Makes an artifact of a completed checkpoint: named, described, and durable before the framework goes on.

The patches call `record` at the moment when the framework has completed a checkpoint, and `deliver` when the
framework's callback has run. `record` writes the outbox entry, with fsync, and the manifest on the calling thread:
after that the checkpoint cannot be lost. The commit thread (commit.py) does the rest, including the fsync of the
manifest. The entry stays until then.
"""

from __future__ import annotations

import collections
import errno
import os

from .. import job, notice
from ..manifest import files as manifest_files
from ..manifest import listing, names, read
from ..manifest import register as manifest_register
from ..paths.absolute import absolute, home_directory
from . import commit, hooks, outbox, pruning, same_save
from .describe import describe, is_uri, published_name
from .settings import settings

__all__ = []

_LOCK_WAIT = 0.5  # seconds for which training waits for other writers of the store; a dead writer's lock lasts longer

Announced = collections.namedtuple("Announced", ["entry", "path"])

Recorded = collections.namedtuple("Recorded", ["entry", "path", "settle", "version"], defaults=(None,))


def record(completed, to_wandb=True):
    """Make a completed checkpoint durable: outbox entry, then manifest.

    Args:
        completed: The checkpoint.
        to_wandb: False where the framework itself logs the checkpoint to W&B.

    Returns:
        `Recorded`, or None where `run.checkpoints` leaves this checkpoint out.
    """
    announced = announce(completed, to_wandb)
    return announced and complete(announced)


def announce(completed, to_wandb=True, renamed_from=None):
    """The first half of `record`: the outbox entry, durable.

    Args:
        completed: The checkpoint.
        to_wandb: False where the framework itself logs the checkpoint to W&B.
        renamed_from: The directory that the framework is about to rename to the checkpoint's, as its last step. If the
            process dies between that step and `complete`, `nemotron_exec.outbox.flush` still finds the checkpoint.

    Returns:
        `Announced`, for `complete` or `withdraw`; None where `run.checkpoints` leaves this checkpoint out.
    """
    config = settings()
    if not _wanted(completed, config.policy):
        return None
    entry = describe(completed, config, renamed_from)
    if not to_wandb:
        entry["wandb"] = None
    hooks.mark(entry, config, completed)
    directories = outboxes(completed.save_dir, config)
    path, problem = None, None
    for directory in directories:
        try:
            path = outbox.write(directory, entry)
            break
        except OSError as error:
            problem = "%s: %s" % (directory, error.strerror or error)
            if error.errno == errno.ELOOP and job.once("outbox is a link", directory):
                notice.warning("nothing is written to %s. Remove the link: %s" % (directory, error.strerror))
    if path is None:
        notice.warning(
            "checkpoint %s has no outbox entry (%s): if this job dies before W&B has it, nothing will send it again"
            % (entry["checkpoint_path"], problem or "there is no place for one")
        )
    return Announced(entry, path)


def withdraw(announced):
    """Remove the entry of an announced checkpoint that was not completed."""
    if announced.path is not None:
        outbox.remove(announced.path)


def take_over(announced, name):
    """Give an announced checkpoint the name that the script has chosen, unless `run.publish` names it.

    Args:
        announced: What `announce` returned.
        name: The name of the artifact that the script has logged for it.

    Returns:
        `Announced`.
    """
    entry, path = announced
    if settings().publish or published_name(name) is None or name == entry["name"]:
        return announced
    entry["name"] = name
    if entry["wandb"] is not None:
        entry["wandb"].update(name=name.replace("/", "-"), published=True)
    if path is not None:
        outbox.write(os.path.dirname(path), entry)
    return announced


def highest(entry):
    """`{name: highest version}` of the local store. To `complete`, newer versions are the script's."""
    if not names.is_local(entry["store"]):
        return None
    return {name: max(listing.numbers(entry["store"], name), default=0) for name in listing.names(entry["store"])}


def complete(announced, before=None):
    """The second half of `record`: the manifest.

    Args:
        announced: What `announce` returned.
        before: What `highest` returned before a script's function ran for this checkpoint; None where none ran. A newer
            version with the same path and iteration is then this checkpoint's, registered by the script.

    Returns:
        `Recorded`.
    """
    entry, path = announced
    entry["gone"] = not is_uri(entry["local_path"]) and not os.path.exists(entry["local_path"])
    settle = version = None
    # An earlier checkpoint may still wait for the commit thread. Register it first: `latest` is the last registered
    # version.
    if names.is_local(entry["store"]) and not any(one.overdue for one in commit.committer().pending()):
        try:
            # The outbox entry is on the disk until the manifest is, so training need not wait for the manifest's fsync.
            files = manifest_files.LocalFiles(entry["store"])
            if path is not None:
                files.deferred = set()
                files.lock_wait = _LOCK_WAIT
            number = _registered_by_script(entry, before) if before is not None else None
            if number is None:
                version = register(entry, files)
            else:
                for alias in entry["aliases"]:
                    manifest_register.set_alias(files, entry["name"], alias, number)
                entry["registered"] = "{}/{}/v{}".format(files.root, entry["name"], number)
                pruning.remember(entry, number)
                entry["number"] = number
            settle = files.settle
        except Exception as error:
            if path is not None and str(error).startswith("to take the lock "):
                notice.debug("checkpoint %s is registered in the background: %s" % (entry["checkpoint_path"], error))
            else:
                notice.warning(
                    "checkpoint %s is not in the manifest store %s yet (%s): it is tried again in the background"
                    % (entry["checkpoint_path"], entry["store"], error)
                )
    return Recorded(entry, path, settle, version)


def _registered_by_script(entry, before):
    """The version that a script has registered for this checkpoint, or None. The entry gets that version's name."""
    for name in listing.names(entry["store"]):
        for number in reversed(listing.numbers(entry["store"], name)):
            if number <= before.get(name, 0):
                break
            found = read.read_version(entry["store"], name, number, skip_gone=False).manifest
            metadata = found.get("metadata") if isinstance(found.get("metadata"), dict) else {}
            told = metadata.get("iteration", metadata.get("step"))
            paths = (entry["path"], entry["local_path"], entry["checkpoint_path"], entry["save_dir"])
            if found.get("event") is None and told == entry["iteration"] and found.get("path") in paths:
                entry["name"] = name
                return number
    return None


def nothing_to_settle():
    """`Recorded.settle` for a checkpoint that is durable in the manifest store: there is no fsync left."""


def outboxes(save_dir, config):
    """The outboxes for an entry, the preferred one first: beside the checkpoint, then in the store."""
    found = []
    # Do not create a deleted save directory again: the framework may check whether it exists.
    if not is_uri(save_dir) and os.path.isdir(save_dir):
        found.append(outbox.directory_of(absolute(save_dir)))
    if names.is_local(config.store):
        found.append(outbox.directory_of(config.store))
    else:
        near = os.path.dirname(os.environ.get("NEMOTRON_EXEC_HANDOFF", ""))
        data = os.environ.get("XDG_DATA_HOME") or os.path.join(home_directory(os.environ) or "", ".local", "share")
        place = near if os.path.isdir(near) else os.path.join(data, "nemotron-exec")
        if os.path.isabs(place):  # without HOME the path is relative
            found.append(outbox.directory_of(place))
    return found


def find(entry, store):
    """The number of the version in a store (path or file system object) that an entry became, or None."""
    for number in reversed(listing.versions(store, entry["name"])):
        try:
            found = read.read_version(store, entry["name"], number)
        except names.StoreError:
            continue  # a damaged version was not written by this process
        if found.manifest.get("event") == entry["event"]:
            return number
    return None


def register(entry, store=None, there=same_save.find_new):
    """Put an entry into a manifest store, unless the store has it, or has the same save from another process.

    Args:
        entry: The outbox entry. If another process has reported the same save, the entry takes over its description.
        store: Path or file system object; default the entry's own.
        there: `there(entry, files)` finds the version of the same save. The default is quick, for the process that
            saved.

    Returns:
        The `manifest.Version`; its `new` is False if the store had it already.
    """
    store = entry["store"] if store is None else store
    extra = {"event": entry["event"], "checkpoint_path": entry["checkpoint_path"]}
    if entry.get("file_system"):
        extra["file_system"] = entry["file_system"]
    if entry["wandb"] is not None and entry["wandb"]["run"]:
        extra["wandb_run"] = entry["wandb"]["run"]
    replaced = same_save.replaced(entry, manifest_files.open_files(store))
    version = manifest_register.register(
        store,
        entry["name"],
        type=entry["type"],
        path=entry["path"],
        metadata=entry["metadata"],
        fields={"absolute_path": entry["path"], "iteration": entry["iteration"]},
        used_artifacts=entry["used_artifacts"],
        producer=entry["producer"],
        created_at=entry["created_at"],
        aliases=entry["aliases"],
        move_latest=entry["latest"],
        extra=extra,
        unless=lambda files: there(entry, files),
    )
    same_save.own(entry)
    entry["number"] = version.number
    entry["registered"] = version.directory
    if version.new:
        what = "checkpoint" if entry.get("ends_with") is None else "output"
        notice.info("%s:v%d is the %s %s" % (entry["name"], version.number, what, entry["checkpoint_path"]))
    if entry["gone"]:
        manifest_register.mark_pruned(store, entry["name"], version.number)
    else:
        pruning.remember(entry, version.number)
    if replaced is not None and version.new:
        pruning.remember(entry, replaced)  # the new save has overwritten the data of this version
    return version


def _wanted(completed, policy):
    if policy == "none":
        return False
    if policy == "periodic":
        return not completed.transient
    if policy == "best":
        return completed.best is not False
    return True
