"""The manifest store: versions of artifacts as small JSON files beside which the data stays where it is.

    {root}/{name}/v{N}/metadata.json    the fields of ${art:NAME,FIELD}
    {root}/{name}/v{N}/manifest.json    type, path and inputs; written last: the version exists from then on
    {root}/{name}/v{N}/inventory.json   names and sizes of a checkpoint's files, after the manifest (inventory.py)
    {root}/{name}/v{N}/pruned           empty: the framework has deleted the data
    {root}/{name}/v{N}/wandb            the same version's name in W&B, entity/project/name:v{M}
    {root}/{name}/latest                "v{N}", no newline
    {root}/{name}/aliases/{alias}       "v{N}", no newline

Layout, keys and bytes are those of NVIDIA's Nemotron (`src/nemo_runspec/manifest_tracker.py`). nemotron-exec adds
`aliases`, `pruned`, `inventory.json`, `wandb` and the manifest's keys `aliases` and `transient`. Nemotron's readers
ignore them.

Promises, for any number of writers on any number of hosts, each of which may die at any instruction:

* No two writers share a number: the directory `vN` is made exclusively before anything is written into it.
* If several writers report the same save, it is one version (`register(unless=…)`).
* A reader sees a version whole or not at all: manifest.json comes last, by rename.
* `latest` never moves to an older version (`in_order`). Writers take turns by the file `.latest.lock`, each for a whole
  version. The lock of a dead writer is broken after `STALE_LOCK` seconds without change. A writer may be stopped for
  longer between its last look at the lock and its rename. Then it could set `latest` back, and the next writer corrects
  that.

Not covered: data that is deleted while a launcher resolves it, and other writers. Nemotron's own writer moves `latest`
without a lock, and after one collision takes an existing directory.

Python 3.8, standard library only: the injector registers checkpoints with this file, the launcher reads with it.
"""

from __future__ import annotations

import collections
import datetime
import os

from .files import label_of, open_files
from .listing import load_version, read_pointer, version_numbers
from .names import _NUMBER, _SCHEME, StoreError, UnknownArtifactError, check_alias, check_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    pass

__all__ = ["Record", "by_save", "data_path", "in_order", "missing_data", "newest_of", "read_version", "wandb_name"]


class Record(collections.namedtuple("Record", "number manifest metadata directory")):
    """A version: `manifest` is the content of manifest.json, `metadata` that of metadata.json ({} without the file)."""

    __slots__ = ()


def read_version(root, name, reference="latest", *, skip_gone=True, on_skip=None, localise=None):
    """Read one version.

    Args:
        root: Path of the store, or a file system object.
        name: Name of the artifact.
        reference: `v3`, `3`, 3, `latest` or an alias. If a version's data is gone, `latest` means the next older
            version (`in_order`), and an alias the newest other version that was registered with it. A version that is
            named by its number is never passed over.
        skip_gone: False to return versions whose data is gone, too.
        on_skip: Called with (number, reason) for each version that was passed over.
        localise: Translates a recorded path into the path of the same data here.

    Returns:
        The Record (number, manifest, metadata, directory).

    Raises:
        UnknownArtifactError: There is no such artifact, version or alias, or the data of every candidate is gone.
        StoreError: A file of the version is damaged.
    """
    files = open_files(root)
    directory = "{}/{}".format(files.root, check_name(name))
    text = str(reference)
    wanted = "to find {}:{} in {}".format(name, text if not text.isdigit() else "v" + text, label_of(files))
    number = _NUMBER.match(text)
    if number:
        if files.exists("{}/v{}/manifest.json".format(directory, int(number.group(1)))):
            return _read(files, directory, int(number.group(1)))
        from .nearest import unknown_version  # imported only for the error: it needs difflib

        raise unknown_version(files, name, wanted)
    skipped = []

    def skip(number, reason):
        skipped.append("v{} {}".format(number, reason))
        if on_skip is not None:
            on_skip(number, reason)

    if text == "latest":
        candidates = _latest_candidates(files, directory)
    else:
        candidates = _alias_candidates(files, directory, check_alias(text))
    for candidate in candidates:
        if not files.exists("{}/v{}/manifest.json".format(directory, candidate)):
            skip(candidate, "has no manifest")
            continue
        record = _read(files, directory, candidate)
        reason = missing_data(files, record, localise, whole=True) if skip_gone else None
        if reason is None:
            return record
        skip(candidate, reason)
    if not skipped:
        from .nearest import unknown_version  # imported only for the error: it needs difflib

        raise unknown_version(files, name, wanted, text)
    raise UnknownArtifactError(
        wanted, "; ".join(skipped), "Name another version, or register the data again with nemotron-artifact add"
    )


def wandb_name(root, record):
    """The name `entity/project/name:vN` of a version in W&B; None where it is not recorded."""
    files = open_files(root)
    data = files.read(record.directory + "/wandb")
    if data is None:
        return None
    text = data.decode("utf-8", "replace").strip()
    return text if text.count("/") == 2 and ":v" in text else None


def data_path(record):
    """The path whose absence means that the version's data is gone: `checkpoint_path`, else `path`."""
    manifest, metadata = record[1], record[2]
    for table in (manifest, manifest.get("metadata"), metadata, metadata.get("metadata")):
        if isinstance(table, dict) and isinstance(table.get("checkpoint_path"), str) and table["checkpoint_path"]:
            return table["checkpoint_path"]
    return manifest["path"]


def missing_data(root, record, localise=None, whole=False):
    """The reason why a version's data cannot be used; None where it can. A URI is not looked up.

    Args:
        root: Path of the store, or a file system object.
        record: The version.
        localise: Translates a recorded path into the path of the same data here.
        whole: Compare the data with the version's inventory: one pass over its directories.
    """
    files = open_files(root)
    if files.exists(record[3] + "/pruned"):
        return "was pruned by the framework that wrote it"
    path = data_path(record)
    if path.startswith("file:"):
        path = "/" + path[len("file:") :].lstrip("/")
    if _SCHEME.match(path):
        return None
    local = localise(path) if localise is not None else path
    if os.path.exists(local):
        return _damage(files, record[3], local) if whole else None
    # Another user may have written the path: show control characters, so that no terminal executes them.
    return "has lost its data: {} is not there".format(path if path.isprintable() else repr(path))


def _damage(files, version_directory, local):
    if not files.exists(version_directory + "/inventory.json"):
        return None
    from . import inventory  # imported only here: it needs hashlib, and most versions have no inventory

    found = inventory.read(files, version_directory)
    return found and inventory.damage(found, local)


def in_order(files, directory, numbers, transient=False):
    """Versions from the oldest to the newest, without those whose manifest is not readable.

    Args:
        files: The store's file system object.
        directory: The artifact's directory.
        numbers: Numbers of its versions.
        transient: Whether to include versions that `latest` never means.

    Returns:
        A list of (number, manifest).
    """
    found = ((number, _manifest(files, "{}/v{}".format(directory, number))) for number in sorted(numbers))
    return by_save(
        [
            (number, manifest)
            for number, manifest in found
            if manifest is not None and (transient or manifest.get("transient") is not True)
        ]
    )


def by_save(found):
    """Sort versions, given by ascending number, from the oldest to the newest.

    Numbers give the order of registration. A checkpoint may wait in an outbox and be registered after newer ones. So of
    two checkpoints, the one that was completed later is the newer.

    Args:
        found: A list of (number, manifest).
    """
    times = [_saved_at(manifest) for _, manifest in found]
    places = [place for place, time in enumerate(times) if time is not None]
    # Only checkpoints are reordered, among their own places. A version that was added by hand stays at its number.
    ordered = list(found)
    for place, source in zip(places, sorted(places, key=lambda place: times[place])):
        ordered[place] = found[source]
    return ordered


def newest_of(files, directory, numbers, transient=False):
    """The newest of some versions (`in_order`), as a number; None where none is readable."""
    ordered = in_order(files, directory, numbers, transient)
    return ordered[-1][0] if ordered else None


def _saved_at(manifest):
    """The time when the framework completed the checkpoint, with time zone; None for other versions."""
    if not isinstance(manifest.get("event"), str):
        return None
    try:
        time = datetime.datetime.fromisoformat(manifest.get("created_at"))
    except (TypeError, ValueError):
        return None
    return time if time.tzinfo is not None else None


def _latest_candidates(files, directory):
    latest = read_pointer(files, directory + "/latest")
    if latest is not None:
        yield latest
    others = (number for number in version_numbers(files, directory) if number != latest)
    for number, _ in reversed(in_order(files, directory, others)):
        yield number


def _alias_candidates(files, directory, alias):
    meant = read_pointer(files, "{}/aliases/{}".format(directory, alias))
    if meant is not None:
        yield meant
    others = (number for number in version_numbers(files, directory) if number != meant)
    for number, manifest in reversed(in_order(files, directory, others, transient=True)):
        listed = manifest.get("aliases")
        if isinstance(listed, list) and alias in listed:
            yield number


def _manifest(files, version_directory):
    # A damaged manifest must not hide the other versions.
    try:
        return load_version(files, version_directory + "/manifest.json")
    except StoreError:
        return None


def _read(files, directory, number):
    directory = "{}/v{}".format(directory, number)
    path = directory + "/manifest.json"
    manifest = load_version(files, path)
    if manifest is None:
        raise StoreError("to read {}".format(path), "it has just been removed", "Try again", temporary=True)
    wanted = "to read {}".format(path)
    if not isinstance(manifest.get("path"), str) or not manifest["path"] or "\0" in manifest["path"]:
        found = "no `path`" if "path" not in manifest else "`path` is {!r}".format(manifest["path"])
        raise StoreError(wanted, found, "Write the path of the data into it, as a string")
    for key, kind, called in _TYPES:
        if manifest.get(key) is not None and not isinstance(manifest[key], kind):
            raise StoreError(wanted, "`{}` is {!r}".format(key, manifest[key]), "It has to be {}".format(called))
    return Record(number, manifest, load_version(files, directory + "/metadata.json") or {}, directory)


_TYPES = (
    ("type", str, "a string"),
    ("metadata", dict, "an object"),
    ("inputs", list, "a list"),
    ("used_artifacts", list, "a list"),
)
