"""Artifacts that no config names: `--artifact KEY=REF` and `--artifacts FILE`.

They count as keys of `run`, and win over those of a config. No `run` section is written into the script's YAML: a
parser that refuses unknown keys would fail on it.
"""

from __future__ import annotations

from nemotron_exec.config.evaluate import Evaluator
from nemotron_exec.config.references import NO_REFERENCES, reference_in
from nemotron_exec.document.document import Scalar, scalar_outside
from nemotron_exec.errors import LaunchError, UsageError
from nemotron_exec.sitecustomize.payload.lazy import pattern

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from nemotron_exec.artifacts.reference import Reference

__all__ = ["named_artifacts", "references_of", "with_named"]

_KEY = pattern(r"[A-Za-z_][\w\-]*\Z")
SETTINGS = (*NO_REFERENCES, "publish", "checkpoints")


def named_artifacts(pairs: Sequence[str], file: str | None) -> dict[str, Any]:
    """The artifacts as nodes of a YAML tree, by key.

    Args:
        pairs: The options `KEY=REF`; they win over the file.
        file: A YAML file with one `KEY: REF` a line, or with such lines under `run:`.

    Raises:
        LaunchError: The file cannot be read, or has other content.
        UsageError: A pair is malformed, or two pairs name one key.
    """
    named = {} if file is None else _of_file(file)
    given: dict[str, str] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        key, text = key.strip(), text.strip()
        if not equals or not text or not _KEY.match(key) or key in SETTINGS:
            raise UsageError(
                f"name an artifact by --artifact {pair}",
                f"{key!r} is a setting of run, not an artifact" if key in SETTINGS else "it is not KEY=REFERENCE",
                "Write for example --artifact data=my-blend:latest",
            )
        if given.setdefault(key, text) != text:
            raise UsageError(
                f"name an artifact by --artifact {pair}",
                f"another --artifact says {key}={given[key]}",
                "Leave out one of the two",
            )
        named[key] = scalar_outside(text, f"--artifact {key}")
    return named


def references_of(named: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, Reference]:
    """The references by key.

    Raises:
        LaunchError: A reference is malformed.
    """
    found = {}
    for key, node in named.items():
        reference = reference_in(key, node, {key: node}, Evaluator({}, None, environ=environ))
        assert reference is not None  # `node` counts as used, so it names a reference or reference_in has raised
        found[key] = reference
    return found


def with_named(tree: Any, named: Mapping[str, Any] | None) -> Any:
    """The tree of a config, its `run` extended by these keys."""
    if not named or not isinstance(tree, dict):
        return tree
    run = tree.get("run")
    return {**tree, "run": {**(run if isinstance(run, dict) else {}), **named}}


def _of_file(path: str) -> dict[str, Any]:
    from nemotron_exec.document.parse import load

    document = load(path)
    tree = document.tree()
    section = tree.get("run", tree) if isinstance(tree, dict) else tree
    if not isinstance(section, dict):
        raise document.error(
            f"to read the artifacts of --artifacts {path}", "it is no mapping", "Write one `KEY: REFERENCE` a line"
        )
    named = {}
    for key, node in section.items():
        is_hub = isinstance(node, dict) and "hf" in node
        if str(key) in SETTINGS or not (isinstance(node, Scalar) or is_hub):
            raise LaunchError(
                f"to read the artifacts of --artifacts {document.path}",
                f"{key} is a setting of run" if str(key) in SETTINGS else f"{key} is no reference",
                "Write one `KEY: REFERENCE` a line; settings of run belong into a config",
            )
        named[str(key)] = node
    return named
