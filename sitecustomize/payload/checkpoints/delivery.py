"""Delivers one checkpoint: first to the manifest store, then to W&B; then its outbox entry is removed.

The same code sends from the job's commit thread and, later, from the launcher (`nemotron-artifact flush`).
"""

from __future__ import annotations

import base64
import hashlib
import os
import threading
import time

from .. import job, noted, notice
from ..lazy import pattern
from ..manifest import names
from ..manifest import register as manifest_register
from . import outbox
from .commit import GivenUpError

METADATA_FILES = ("metadata.json", "nemotron-exec/metadata.json")
"""The places of nemotron-exec's metadata.json in a W&B artifact. The second is used where the first is taken:
Megatron's distributed checkpoints have a `metadata.json`, and the framework's reference puts it at the artifact's
top."""

# W&B parses a file reference as a URL: it cuts the path at `#` and `?`, and decodes `%XX`.
_NO_URL = pattern(r"[#?]|%[0-9A-Fa-f]{2}")
# The client rejects its arguments with these errors: a second attempt would fail, too.
_NEVER = ("UsageError", "ValueError", "TypeError", "ValidationError")

_RESEND_AFTER = (5.0, 15.0, 60.0)  # seconds until the next attempt at W&B after each failure; the last one repeats
_REGISTER_AFTER = (1.0, 2.0, 5.0, 15.0)  # the same for the manifest store


class Delivery:
    """The delivery of one outbox entry.

    Args:
        entry: The outbox entry.
        path: The entry's file; None if it could not be written.
        register: `register(entry)` puts the entry into the manifest store; None if that is done.
        send: `send(entry)` logs the entry to W&B and returns the artifact; None where W&B is not wanted.
        handle: The artifact that the framework itself has logged, to be waited for.
        keep: Whether the entry stays in the outbox, because another process will send it to W&B.
        name: `name(qualified_name)` records the checkpoint's name in W&B in the manifest store. None where the store is
            a directory: `note_wandb` writes to it.

    Attributes:
        overdue: Whether the manifest store does not have it yet: a later checkpoint must not be registered before it.
        then: `then(entry, path)` is called once the manifest store has it, and starts its hooks (hooks.py); None for
            none.
    """

    def __init__(self, entry, path=None, register=None, send=None, handle=None, keep=False, name=None):
        self.entry = entry
        self.path = path
        self.register = register
        self.send = send
        self.handle = handle
        self.keep = keep
        self.name = name
        self.then = None
        self.overdue = False
        self._waiter = None
        self._failures = 0
        self._not_before = 0.0
        self._why = None

    def __str__(self):
        return "%s (%s)" % (self.entry["checkpoint_path"], self.entry["name"])

    @property
    def for_wandb(self):
        """Whether the entry has to reach W&B."""
        return self.handle is not None or self.send is not None

    def attempt(self, patience, turn=True, register=True):
        """Try the open steps for about `patience` seconds. Return whether all are done.

        Args:
            patience: Seconds.
            turn: Whether this entry may go to W&B. Checkpoints go one after the other, so that `latest` is the last
                one.
            register: Whether this entry may go to the manifest store, for the same reason.

        Raises:
            GivenUpError: W&B will not take the entry from this process.
        """
        if time.monotonic() < self._not_before:
            return False
        if self.register is not None:
            if not register:
                return False
            try:
                self.register(self.entry)
            except Exception:
                self._rest(_REGISTER_AFTER)
                raise
            self.register = None
            self.overdue = False
            self._failures = 0
            if self.entry.get("sent_by") and not getattr(self.handle, "logged", False):
                self.leave_out_wandb()
        if self.then is not None:
            try:
                self._hand_over()
            except OSError as fault:
                self._why = "its hooks cannot be noted: %s" % fault  # go on to W&B all the same
        if not self.for_wandb:
            return self._finish()
        if not turn:
            return False
        if self._waiter is None:
            self._waiter = _Waiter(self)
        if not self._waiter.done.wait(patience):
            return False
        error, self._waiter = self._waiter.error, None
        if error is not None:
            self._failed(error)
            return False
        return self._finish()

    def commit(self):
        """Log the checkpoint to W&B, unless that is done, and wait without a bound until W&B has committed it."""
        if self.handle is None:
            self.handle = self.send(self.entry)
        # A disabled run returns an object whose wait() does nothing; older clients may return None.
        wait = getattr(self.handle, "wait", None)
        if wait is not None:
            # Without a time-out: when it expires, the client cancels the upload itself (mailbox/response_handle.py of
            # 0.27.2 and 0.31.0; 0.22.0 only gives up waiting).
            note_wandb(self.entry, wait(), self.name)

    def block(self):
        """Wait for W&B on this thread, without a bound, as upstream's patch did. An error is retried later."""
        try:
            if self.for_wandb:
                self.commit()
        except Exception as error:
            self.handle = None
            notice.debug("%s: %r, trying again in the background" % (self, error))

    def leave_out_wandb(self):
        """Deliver to the manifest store only."""
        self.send = self.handle = None
        self.keep = False

    def unfinished(self):
        """The reason why the delivery is not done, for the line at exit."""
        if self.register is not None:
            return "it could not be written to the manifest store%s" % self._kept()
        return "%s%s" % (self._why or "W&B has not committed it yet", self._kept())

    def _hand_over(self):
        if self.then is not None:
            self.then(self.entry, self.path)
            self.then = None

    def _finish(self):
        try:
            self._hand_over()
        except OSError:
            self._rest(_REGISTER_AFTER)
            raise
        if self.path is not None and not self.keep:
            outbox.remove(self.path)
        where = ["store"] + (["W&B"] if self.for_wandb else [])
        noted.note("delivered", name=self.entry["name"], path=self.entry["checkpoint_path"], to=where)
        return True

    def _failed(self, error):
        kind = type(error).__name__
        text = str(error).strip().splitlines()[0] if str(error).strip() else kind
        if kind == "ArtifactNotLoggedError":
            raise GivenUpError("W&B is offline%s" % self._kept()) from None
        if kind in _NEVER or "already exists with type" in text:
            raise GivenUpError("W&B did not take it: %s%s" % (text, self._kept())) from None
        self._why = "W&B did not take it: %s" % text
        notice.debug("%s: %s" % (self, self._why))
        # A failed handle stays failed: log the artifact anew. W&B recognises the same content and makes no second
        # version.
        self.handle = None
        if self.send is None:
            raise GivenUpError(self._why + self._kept()) from None
        self._rest(_RESEND_AFTER)

    def _rest(self, pauses):
        self._not_before = time.monotonic() + pauses[min(self._failures, len(pauses) - 1)]
        self._failures += 1

    def _kept(self):
        if self.path is None:
            return ", and there is no outbox entry"
        return "; it stays in %s until the next start of the job, or `nemotron-artifact flush %s`" % (
            os.path.dirname(self.path),
            self.entry.get("save_dir") or os.path.dirname(self.path),
        )


class _Waiter:
    """Runs one `commit` on a thread of its own: calls of wandb have no bound, and would block the commit thread."""

    def __init__(self, delivery):
        self.done = threading.Event()
        self.error = None
        self._delivery = delivery
        threading.Thread(target=self._run, name="nemotron-exec-wandb", daemon=True).start()

    def _run(self):
        try:
            self._delivery.commit()
        except Exception as error:
            self.error = error
        finally:
            self.done.set()


class Deferred:
    """A W&B artifact that is logged when the commit thread or the framework first asks for one of its attributes."""

    def __init__(self, log):
        self._log = log
        self._lock = threading.Lock()
        self._artifact = None

    @property
    def logged(self):
        """Whether the artifact has been logged."""
        return self._artifact is not None

    def wait(self, *args, **kwargs):
        """Log the artifact, if it is not logged, and wait until W&B has committed it."""
        artifact = self._logged()
        wait = getattr(artifact, "wait", None)
        # The artifact of a disabled run has no wait().
        return artifact if wait is None else wait(*args, **kwargs)

    def __getattr__(self, name):
        return getattr(self._logged(), name)

    def _logged(self):
        with self._lock:
            if self._artifact is None:
                self._artifact = self._log()
        return self._artifact


def note_wandb(entry, artifact, write=None):
    """Record a checkpoint's name and number in W&B in the manifest store, for people who compare the two stores.

    Args:
        entry: The outbox entry, registered.
        artifact: The artifact that W&B has committed.
        write: `write(qualified_name)`, for a store that is a URI.
    """
    try:
        name, version = str(artifact.qualified_name).partition(":")[0], str(artifact.version)
        qualified_name = "%s:%s" % (name, version)
        if write is not None:
            write(qualified_name)
        elif entry.get("number") is not None and names.is_local(entry["store"]):
            manifest_register.note_wandb(entry["store"], entry["name"], entry["number"], qualified_name)
    except Exception as error:
        # An artifact of a disabled or offline run has no number; the checkpoint is recorded all the same.
        notice.debug("the number in W&B of %s is not recorded: %r" % (entry.get("checkpoint_path"), error))


def wandb_metadata(entry):
    """The metadata of the W&B artifact: the manifest's, the event, and the time of the save.

    The event identifies a checkpoint that is sent twice. The time keeps a checkpoint that is sent late from taking
    `latest`.
    """
    metadata = dict(entry["metadata"])
    metadata["nemotron_exec_event"] = entry["event"]
    metadata["nemotron_exec_saved_at"] = entry["created_at"]
    if entry.get("used_artifacts"):
        metadata["used_artifacts"] = entry["used_artifacts"]
    return metadata


def metadata_file(entry):
    """The content of metadata.json, in the manifest store as in W&B: the fields of `${art:…}` for the next job."""
    return {
        "path": entry["path"],
        "type": entry["type"],
        "created_at": entry["created_at"],
        "iteration": entry["iteration"],
        "absolute_path": entry["path"],
        "metadata": wandb_metadata(entry),
    }


def add_metadata_file(artifact, entry):
    """Put nemotron-exec's metadata.json into a W&B artifact that is not logged yet.

    The file has the fields for the next job. It also gives the artifact a digest of its own: without it, W&B would take
    two references to one path for the same version.
    """
    import json

    for name in METADATA_FILES:
        if name in artifact.manifest.entries:
            continue
        with artifact.new_file(name, mode="w") as stream:
            json.dump(metadata_file(entry), stream, indent=1, default=str, sort_keys=True)
        return


def translate_references(artifact, inside, outside):
    """Rewrite `file://` references below `inside`, the directory in the container, to `outside`, its path on the host.

    `add_reference` takes only paths that exist in this container, so references are rewritten afterwards. Without
    checksums an entry's digest is that of its path, and is computed anew.
    """
    if inside == outside:
        return
    prefix = "file://" + inside
    for entry in artifact.manifest.entries.values():
        reference = getattr(entry, "ref", None)
        if not isinstance(reference, str) or not (reference == prefix or reference.startswith(prefix + "/")):
            continue
        path = outside + reference[len(prefix) :]
        entry.ref = "file://" + path
        entry.digest = base64.b64encode(hashlib.md5(path.encode("utf-8")).digest()).decode("ascii")  # noqa: S324


def log_to_wandb(wandb, run, entry, aliases=None):
    """Log an entry as a W&B artifact in the format of design.md, and return the artifact, not yet committed.

    Args:
        wandb: The client's module.
        run: The run that logs it.
        entry: The outbox entry.
        aliases: The entry's aliases that the artifact gets; default all.
    """
    target = entry["wandb"]
    name = names.wandb_name(target["name"])
    if name not in (entry["name"], entry["name"].replace("/", "-")) and job.once("name in W&B", name):
        notice.info(
            "%s is %s in W&B, whose client refuses some characters and more than 128. run.publish sets another name"
            % (entry["name"], name)
        )
    artifact = wandb.Artifact(name, type=entry["type"], metadata=wandb_metadata(entry))
    reference = entry["checkpoint_path"]
    if "://" in reference:
        _refer(artifact, reference)
    else:
        for path in (entry.get("local_path"), reference):
            if path and os.path.isdir(path):
                path = os.path.realpath(path)
                if _NO_URL.search(path + reference):
                    notice.debug(
                        "no reference to %s in W&B, which would read it as a URL: its metadata names it" % path
                    )
                    break
                artifact.add_reference("file://" + path, checksum=False)
                translate_references(artifact, path, reference)
                break
    add_metadata_file(artifact, entry)
    return run.log_artifact(artifact, aliases=list(target["aliases"] if aliases is None else aliases))


def _refer(artifact, uri):
    try:
        artifact.add_reference(uri, checksum=False)
    except Exception as error:
        # W&B needs a client library for some schemes. Without it the artifact has no reference; its metadata has the
        # URI.
        notice.debug("no reference to %s in W&B: %r" % (uri, error))
