"""Names and versions near a reference that the manifest store does not have."""

from __future__ import annotations

from .listing import aliases, names, versions
from .names import UnknownArtifactError

TYPE_CHECKING = False
if TYPE_CHECKING:
    pass

__all__ = ["unknown_version"]


def unknown_version(files, name, wanted, alias=""):
    """The error for a version that does not exist. It names the versions that do."""
    there = versions(files, name)
    if not there:
        return _unknown_name(files, name, wanted)
    shown = ["v{}".format(number) for number in there]
    if len(shown) > 10:
        shown = shown[:3] + ["…"] + shown[-6:]
    found = "{} has the versions {}".format(name, ", ".join(shown))
    have = ["latest", *aliases(files, name)]
    if alias:
        found += " and the aliases " + ", ".join(have)
    return UnknownArtifactError(wanted, found, (alias and _nearest(alias, have)) or "Name one of them")


def _unknown_name(files, name, wanted):
    have = names(files)
    if not have:
        return UnknownArtifactError(
            wanted,
            "the store is empty",
            "Check the store's root, or add one: nemotron-artifact add {} PATH".format(name),
        )
    close = _nearest(name, have)
    found = "no artifact of that name; there are {}".format(", ".join(have[:10]) + (", …" if len(have) > 10 else ""))
    return UnknownArtifactError(wanted, found, close or "Check the name, or the store's root")


def _nearest(name, have):
    import difflib

    close = difflib.get_close_matches(name, have, 3, 0.5)
    tail = name.rsplit("/", 1)[-1]
    close += [other for other in have if other.rsplit("/", 1)[-1] == tail and other not in close][:3]
    return "Did you mean {}?".format(" or ".join(close[:3])) if close else ""
