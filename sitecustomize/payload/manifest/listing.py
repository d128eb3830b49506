"""Lists the content of a manifest store: names, versions, aliases."""

from __future__ import annotations

import json

from .files import open_files
from .names import _ALIAS, _PART, _VERSION, MAX_DEPTH, RESERVED, StoreError, check_alias, check_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    pass

__all__ = [
    "aliases",
    "load_version",
    "names",
    "numbers",
    "read_alias",
    "read_latest",
    "read_pointer",
    "uncommitted",
    "version_numbers",
    "versions",
]


def names(root):
    """Names of all artifacts that have a version, sorted."""
    files = open_files(root)
    found = []

    def walk(directory, parts):
        entries = files.list(directory)
        if parts and any(
            _VERSION.match(entry) and files.exists("{}/{}/manifest.json".format(directory, entry))
            for entry, is_directory in entries
            if is_directory
        ):
            found.append("/".join(parts))
        if len(parts) < MAX_DEPTH:
            for entry, is_directory in entries:
                if is_directory and _PART.match(entry) and entry not in RESERVED and not _VERSION.match(entry):
                    walk("{}/{}".format(directory, entry), parts + [entry])

    walk(files.root, [])
    return sorted(found)


def numbers(root, name):
    """Numbers that writers have taken, ascending, with or without a manifest. It lists one directory only."""
    files = open_files(root)
    return sorted(version_numbers(files, "{}/{}".format(files.root, check_name(name))))


def versions(root, name):
    """Numbers of all versions of an artifact, ascending; empty where there is no such artifact."""
    files = open_files(root)
    directory = "{}/{}".format(files.root, check_name(name))
    return sorted(
        number
        for number in version_numbers(files, directory)
        if files.exists("{}/v{}/manifest.json".format(directory, number))
    )


def uncommitted(root, name):
    """Numbers that a writer has taken, without a manifest: the writer is still writing, or died."""
    files = open_files(root)
    directory = "{}/{}".format(files.root, check_name(name))
    return sorted(set(version_numbers(files, directory)).difference(versions(files, name)))


def aliases(root, name):
    """The aliases of an artifact and the numbers they mean, without `latest`."""
    files = open_files(root)
    directory = "{}/{}/aliases".format(files.root, check_name(name))
    found = {}
    for alias, is_directory in sorted(files.list(directory)):
        if not is_directory and _ALIAS.match(alias):
            found[alias] = read_pointer(files, "{}/{}".format(directory, alias))
    return found


def read_latest(root, name):
    """The number in the file `latest`; None without that file."""
    files = open_files(root)
    return read_pointer(files, "{}/{}/latest".format(files.root, check_name(name)))


def read_alias(root, name, alias):
    """The number in the file of an alias; None without that file."""
    files = open_files(root)
    return read_pointer(
        files, "{}/{}/aliases/{}".format(files.root, check_name(name), check_alias(alias)), strict=False
    )


def version_numbers(files, directory):
    """The numbers of the version directories, unordered ints."""
    for entry, is_directory in files.list(directory):
        match = _VERSION.match(entry)
        if match and is_directory:
            yield int(match.group(1))


def read_pointer(files, path, strict=True):
    """The number in a file that holds `vN`; None where there is no such file.

    Raises:
        StoreError: The file holds something else, and `strict` is set.
    """
    data = files.read(path)
    if data is None:
        return None
    match = _VERSION.match(data.decode("utf-8", "replace").strip())
    if match:
        return int(match.group(1))
    if not strict:
        return None
    raise StoreError(
        "to read {}".format(path),
        "{!r} instead of a version such as 'v3'".format(data[:40]),
        "Write the version into it",
    )


def load_version(files, path):
    """A JSON file of a version as a dict; None where there is no such file.

    Raises:
        StoreError: It is no JSON object.
    """
    data = files.read(path)
    if data is None:
        return None
    try:
        value = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as e:
        raise StoreError(
            "to read {}".format(path), "not JSON ({})".format(e), "Mend the file, or remove the version's directory"
        ) from e
    if not isinstance(value, dict):
        raise StoreError(
            "to read {}".format(path), "JSON that is not an object", "Mend the file, or remove the version's directory"
        )
    return value
