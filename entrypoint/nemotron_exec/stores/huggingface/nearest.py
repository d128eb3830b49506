"""Finds the part of a reference that the hub does not know, and similar names that it has."""

from __future__ import annotations

import contextlib
import difflib
from typing import TYPE_CHECKING, Any

from nemotron_exec.errors import LaunchError, TemporaryError

if TYPE_CHECKING:
    from nemotron_exec.stores.huggingface.faults import Subject

__all__ = ["unknown"]


def unknown(api: Any, subject: Subject) -> LaunchError:
    """The error for a repository or revision that the hub does not show.

    Args:
        api: The HfApi of huggingface_hub.
        subject: The repository of the request.
    """
    try:
        refs = api.list_repo_refs(subject.name, repo_type=subject.kind)
    except Exception:  # noqa: BLE001  (then the hub does not show the repository either)
        return _repository(api, subject)
    named = {ref.name: ref.target_commit for ref in (*refs.branches, *refs.tags)}
    if subject.revision in {*named, *named.values()}:
        found = f"{subject.host} has {subject.revision!r} of it, and does not show its files (HTTP 401 or 404)"
        return TemporaryError(subject.wanted, found, f"Start the job again, and see {subject.page}")
    found = f"the {subject.noun} has no revision {subject.revision!r}"
    whole = [commit for commit in named.values() if commit.startswith(subject.revision)]
    if whole and len(subject.revision) >= 4:
        return LaunchError(subject.wanted, found, f"Write the whole commit: {whole[0]}")
    near = difflib.get_close_matches(subject.revision, list(named), n=3, cutoff=0.4) or sorted(named)[:8]
    return LaunchError(subject.wanted, found, f"Nearest that exist: {', '.join(near)}; or a commit of 40 digits")


def _repository(api: Any, subject: Subject) -> LaunchError:
    other = "dataset" if subject.kind == "model" else "model"
    with contextlib.suppress(Exception):
        api.repo_info(subject.name, repo_type=other, timeout=10.0)
        shown = f"hf://{'datasets/' if other == 'dataset' else ''}{subject.name}"
        kind = "data set" if other == "dataset" else "model"
        found = f"{subject.host} has no {subject.noun} {subject.name}, but a {kind} of that name"
        return LaunchError(subject.wanted, found, f"Write {shown}")
    found = f"{subject.host} shows no {subject.noun} {subject.name}"
    if subject.token:
        return LaunchError(subject.wanted, f"{found} to the owner of the token", "Check the name")
    return LaunchError(subject.wanted, f"{found} without a token", "Check the name, or set HF_TOKEN for a private one")
