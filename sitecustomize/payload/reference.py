"""Tells whether a value under `run:` looks like the name of an artifact."""

from __future__ import annotations

import re

from .lazy import pattern

__all__ = ["looks_like_reference", "may_be_another"]

_IMAGE = pattern(r"(?:nvcr\.io|docker|ghcr\.io|quay\.io)|\.sqsh\Z|\.sif\Z", re.IGNORECASE)
_FORMS = (
    # name:v3, name:3, name:latest, with slashes as the manifest store has them
    pattern(r"(?:\w[\w.+\-]*/){0,7}\w[\w.+\-]*:(?:v?\d+|latest)\Z"),
    # entity/project/name:alias
    pattern(r"(?:\w[\w.+\-]*/){2}\w[\w.+\-]*:[\w.\-]+\Z"),
    # a registry of W&B
    pattern(r"wandb-registry-[\w.\-]+/[\w.\-]+(?::[\w.\-]+)?\Z"),
    # Name-with-Artifact
    pattern(r"\w[\w.+\-]*Artifact[\w.\-]*(?::[\w.\-]+)?\Z"),
)


# torch.device, and hosts with a port.
_DEVICE = pattern(
    r"(?:cuda|cpu|gpu|mps|xpu|npu|hpu|tpu|xla|mlu|musa|ipu|hip|rocm|mtia|maia|vulkan|meta|privateuseone):\d+\Z",
    re.IGNORECASE,
)
_HOST = pattern(r"(?:localhost|\d{1,3}(?:\.\d{1,3}){3}|[\w\-]+(?:\.[\w\-]+)+):\d{2,5}\Z|[\w\-]+:\d{5}\Z", re.IGNORECASE)
# `ubuntu:latest`, `redis:7`, `org/image:latest`: a container image or a host with its port has the same form.
_SHORT = pattern(r"(?:[A-Za-z0-9][\w.\-]*/)?[A-Za-z0-9][\w.\-]*:(?:\d+|latest)\Z")


def may_be_another(value):
    """Whether a value that looks like a reference may also be an image or a host. Only its use can tell."""
    return _SHORT.match(value) is not None and "Artifact" not in value


def looks_like_reference(value):
    """Whether a value names an artifact even if no `${art:…}` uses its key.

    The forms are those of design.md. A container image and a Hugging Face id (`org/model`, without an alias) are no
    references.
    """
    if not isinstance(value, str) or not value:
        return False
    if value.startswith(("art://", "hf://")):
        return True
    if _DEVICE.match(value) or _HOST.match(value):
        return False
    return not _IMAGE.search(value) and any(form.match(value) for form in _FORMS)
