"""The faults of a manifest store: damaged files, missing data, references to versions that do not exist."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nemotron_exec.sitecustomize.payload.manifest import inventory as inventories
from nemotron_exec.sitecustomize.payload.manifest import listing, names, read
from nemotron_exec.sitecustomize.payload.paths.host import localise

if TYPE_CHECKING:
    from nemotron_exec.artifact_cli.inventory import Entry, Inventory

__all__ = ["Finding", "verify", "verify_data"]


@dataclass(frozen=True)
class Finding:
    """A fault of the store, or a note about it.

    Attributes:
        level: "error" where a job that resolves this fails or gets a wrong version, else "note".
        subject: The subject of the finding: `name:vN`, a name, or a file.
        found: The fault.
        remedy: How to mend the fault.
    """

    level: str
    subject: str
    found: str
    remedy: str

    def to_json(self) -> dict[str, str]:
        """One object of `--json`."""
        return {"level": self.level, "subject": self.subject, "found": self.found, "remedy": self.remedy}


def verify(files: Any, inventory: Inventory) -> list[Finding]:
    """The findings about the artifacts of an inventory, errors first."""
    findings = [
        Finding("error", problem.partition(": ")[0], problem.partition(": ")[2], "Write a version such as v3 into it")
        for problem in inventory.problems
    ]
    there = {entry.qualified_name for entry in inventory.entries}
    known = {entry.name for entry in inventory.entries}
    for name, entries in inventory.by_name().items():
        findings += _of_pointers(files, name, entries)
        for number in listing.uncommitted(files, name):
            findings.append(
                Finding(
                    "note",
                    f"{name}:v{number}",
                    "has a number and no manifest: it is being written, or its writer died",
                    "nemotron-artifact gc removes it after a day",
                )
            )
        for entry in entries:
            findings += _of_version(entry, there, known)
    return sorted(findings, key=lambda finding: finding.level)


def verify_data(files: Any, inventory: Inventory, *, digests: bool) -> list[Finding]:
    """The versions whose data differs from the record.

    Args:
        files: The store.
        inventory: The versions to look at. Versions without data, or with data at a URI, are left out.
        digests: Read every file that has a recorded digest. A version without digests gives a note.
    """
    findings = []
    for entry in inventory.entries:
        path = read.data_path((entry.number, entry.manifest, entry.fields, entry.directory)) if entry.manifest else ""
        path = localise(path.removeprefix("file://"))
        if entry.missing or entry.damaged or not os.path.isabs(path):
            continue
        recorded = inventories.read(files, entry.directory)
        if recorded is None:
            found = "has no inventory: it was registered by another program, or by an older version"
            findings.append(Finding("note", entry.qualified_name, found, "Nothing: its data are not compared"))
            continue
        if found := inventories.damage(recorded, path, digests):
            findings.append(Finding("error", entry.qualified_name, found, "Name another version, or put the data back"))
        elif digests and not recorded.get("sha256"):
            found = "has no digests, so only names and sizes are compared"
            remedy = "NEMOTRON_EXEC_CHECKPOINT_DIGESTS records them in later jobs"
            findings.append(Finding("note", entry.qualified_name, found, remedy))
    return findings


def _of_version(entry: Entry, there: set[str], known: set[str]) -> list[Finding]:
    if entry.damaged:
        remedy = f"Mend it, or remove {entry.directory}"
        return [Finding("error", entry.qualified_name, entry.damaged, remedy)]
    findings = []
    if entry.missing and "pruned" in entry.missing:
        findings.append(Finding("note", entry.qualified_name, entry.missing, "nemotron-artifact gc forgets it"))
    elif entry.missing:
        findings.append(
            Finding(
                "error",
                entry.qualified_name,
                entry.missing,
                "Put it back; where nothing was made from it, nemotron-artifact gc forgets it",
            )
        )
    for used in entry.used_artifacts:
        name, _, version = used.rpartition(":v")
        if version.isdigit() and name in known and used not in there:
            findings.append(
                Finding(
                    "note",
                    entry.qualified_name,
                    f"was made from {used}, which does not exist",
                    "Nothing: lineage ends there",
                )
            )
    return findings


def _of_pointers(files: Any, name: str, entries: list[Entry]) -> list[Finding]:
    numbers = {entry.number for entry in entries}
    try:
        latest = listing.read_latest(files, name)
        aliases = listing.aliases(files, name)
    except names.StoreError:
        return []  # the inventory's problems name it already
    findings = []
    ordered = read.by_save(
        [(entry.number, entry.manifest) for entry in entries if not entry.transient and not entry.damaged]
    )
    newest = ordered[-1][0] if ordered else None
    if latest is None and newest is not None:
        findings.append(
            Finding(
                "note", name, "has no file `latest`: readers take the highest version", "The next version writes one"
            )
        )
    elif latest is not None and latest not in numbers:
        findings.append(
            Finding("error", f"{name}:latest", f"means v{latest}, which does not exist", "The next version moves it")
        )
    elif latest != newest and latest in [number for number, _ in ordered]:
        findings.append(
            Finding(
                "note",
                f"{name}:latest",
                f"means v{latest}, though v{newest} is newer: a writer died in between",
                "The next version moves it",
            )
        )
    for alias, number in aliases.items():
        if number not in numbers:
            findings.append(
                Finding(
                    "error",
                    f"{name}:{alias}",
                    f"means v{number}, which does not exist",
                    "nemotron-artifact gc removes it",
                )
            )
    return findings
