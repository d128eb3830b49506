"""YAML files that are no config of the launcher are passed through, whatever they hold.

A command may name Kubernetes manifests, templates and data beside its config. A file is a config only if it has a
`run:` mapping or an `${art:…}`, or inherits from such a file.
"""

from __future__ import annotations

import re

from nemotron_exec.document.document import Scalar
from nemotron_exec.sitecustomize.payload.lazy import pattern

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from nemotron_exec.config.inherit import Layer

__all__ = ["counts", "has_template_in_run", "is_template", "uses_artifacts", "would_be_a_config"]

_USES_TEXT = r"\$\{\s*(?:art|manifest)\s*:|\$\{\s*run\s*(?:\.|\[\s*['\"]?[A-Za-z_])"
_USES = pattern(_USES_TEXT)
_SECTION = pattern(rb"^(?:\{[ \t]*)?[\"']?run[\"']?[ \t]*:[ \t]*(?:[&!]\S+[ \t]*)?(?:#.*)?(?:$|\{(?!\{))", re.MULTILINE)
_TEMPLATE = pattern(
    rb"\{\{-?\s*[\w.$\"'(][^{}\n]*\}\}|\{%-?\s*\w[^\n]*%\}|<%[^\n]*%>|%\(\w+\)s|\[\[\s*\.?\w[^\n]*\]\]|@\w+@"
)
_IN_TEMPLATE = pattern(r"[\w./-]*(?:\{\{[^{}]*\}\}|\{%[^{}]*%\})[\w./:@-]*\Z")
_USES_BYTES = pattern(_USES_TEXT.encode())


def uses_artifacts(text: str) -> bool:
    """Whether a text has an interpolation of an artifact or of the `run` section."""
    return _USES.search(text) is not None


def is_template(path: str) -> bool:
    """Whether a file that cannot be read as YAML is a template of Helm, Go or Jinja."""
    try:
        with open(path, "rb") as file:
            return _TEMPLATE.search(file.read()) is not None
    except OSError:
        return False


def has_template_in_run(tree: object) -> bool:
    """Whether a template engine fills in an artifact of the `run` section: `data: "{{ name }}:v1"`.

    A command under `run.on_checkpoint` may have braces of its own: `docker inspect -f '{{ .Id }}' job`.
    """
    run = tree.get("run") if isinstance(tree, dict) else None
    values = run.values() if isinstance(run, dict) else ()
    return any(_IN_TEMPLATE.match(node.value) is not None for node in values if isinstance(node, Scalar))


def would_be_a_config(path: str) -> bool:
    """Whether a file that cannot be parsed as YAML was meant to be a config of the launcher."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError:
        return True
    return bool(_USES_BYTES.search(data) or _SECTION.search(data.replace(b"\r", b"")))


def counts(layer: Layer) -> bool:
    """Whether a config, or a file that it inherits from, names an artifact or has a `run` section."""
    tree = layer.document.tree()
    text = layer.document.text
    if (isinstance(tree, dict) and "run" in tree and isinstance(tree["run"], dict)) or uses_artifacts(text):
        return True
    if "/nemo_run" in text:  # the launcher translates such a path where the job runs outside its container
        return True
    return any(counts(parent) for _, parent in layer.parents)
