"""What is wrong in a manifest store: damaged files, data that is gone, references to versions that do not exist."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nemotron_exec.sitecustomize.payload import manifest as layout

if TYPE_CHECKING:
    from nemotron_exec.inventory import Entry, Inventory

__all__ = ["Finding", "verify"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong or worth knowing.

    Attributes:
        level: "error" where a job that resolves this fails or gets another version than it should, "note" otherwise.
        subject: `name:vN`, a name, or a file.
        found: What is the matter.
        remedy: What to do about it.
    """

    level: str
    subject: str
    found: str
    remedy: str

    def to_json(self) -> dict[str, str]:
        """One object of `--json`."""
        return {"level": self.level, "subject": self.subject, "found": self.found, "remedy": self.remedy}


def verify(files: Any, inventory: Inventory) -> list[Finding]:
    """Everything that is wrong with the artifacts of an inventory, errors first."""
    findings = [
        Finding("error", problem.partition(": ")[0], problem.partition(": ")[2], "Write a version such as v3 into it")
        for problem in inventory.problems
    ]
    there = {entry.qualified_name for entry in inventory.entries}
    known = {entry.name for entry in inventory.entries}
    for name, entries in inventory.by_name().items():
        findings += _of_pointers(files, name, entries)
        for number in layout.uncommitted(files, name):
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
        latest = layout.read_latest(files, name)
        aliases = layout.aliases(files, name)
    except layout.StoreError:
        return []  # already among the inventory's problems
    findings = []
    newest = max((entry.number for entry in entries if not entry.transient and not entry.damaged), default=None)
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
    elif latest is not None and newest is not None and latest < newest:
        findings.append(
            Finding(
                "note",
                f"{name}:latest",
                f"means v{latest}, though v{newest} exists: a writer died in between",
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
