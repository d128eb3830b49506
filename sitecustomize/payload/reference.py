"""How a value under `run:` looks that names an artifact."""

from __future__ import annotations

import re

__all__ = ["looks_like_reference"]

_IMAGE = re.compile(r"(?:nvcr\.io|docker|ghcr\.io|quay\.io)|\.sqsh\Z|\.sif\Z", re.IGNORECASE)
_FORMS = (
    # name:v3, name:3, name:latest, with slashes as the manifest store has them
    re.compile(r"(?:[A-Za-z0-9][\w.\-]*/){0,7}[A-Za-z0-9][\w.\-]*:(?:v?\d+|latest)\Z"),
    # entity/project/name:alias
    re.compile(r"(?:[A-Za-z0-9][\w.\-]*/){2}[A-Za-z0-9][\w.\-]*:[\w.\-]+\Z"),
    # a registry of W&B
    re.compile(r"wandb-registry-[\w.\-]+/[\w.\-]+(?::[\w.\-]+)?\Z"),
    # Name-with-Artifact
    re.compile(r"[A-Za-z0-9][\w.\-]*Artifact[\w.\-]*(?::[\w.\-]+)?\Z"),
)


def looks_like_reference(value):
    """Whether a value names an artifact even if no `${art:…}` uses its key.

    The forms are those of design.md; a container image and a Hugging Face id (`org/model`, no alias) are none.
    """
    if not isinstance(value, str) or not value:
        return False
    if value.startswith("art://"):
        return True
    return not _IMAGE.search(value) and any(form.match(value) for form in _FORMS)
