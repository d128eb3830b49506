"""Which keys of `run:` name artifacts, and how each value is read."""

from __future__ import annotations

from nemotron_exec.artifacts.reference import Reference, looks_like_reference, may_be_another, parse_reference
from nemotron_exec.config import hydra
from nemotron_exec.config.evaluate import Evaluator, Kept, Path, Value
from nemotron_exec.config.root import node_at, plain_value
from nemotron_exec.document.document import Scalar
from nemotron_exec.errors import LaunchError
from nemotron_exec.frozen import replace
from nemotron_exec.sitecustomize.payload.lazy import pattern

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from nemotron_exec.command.override import Override
    from nemotron_exec.config.root import Root

__all__ = [
    "NO_REFERENCES",
    "look_up",
    "may_be_reference",
    "reference_in",
    "refuse_contested",
    "refuse_two_versions",
    "refuse_unknown_keys",
]

# A host with a port is no artifact if its key is one of an address: `addr: head:6379`.
_ADDRESS_KEY = pattern(r"(?i)addr|host|port|url|uri|endpoint|server|master|broker|redis|proxy")
_ADDRESS = pattern(r"[\w.\-]+:\d{2,5}\Z")
NO_REFERENCES = ("env", "wandb", "outputs", "on_checkpoint")


def look_up(evaluator: Evaluator, scalar: Scalar, path: Path, tree: Any) -> None:
    """Evaluate a scalar, so that the evaluator notes its keys. An error in a value that nothing reads is ignored."""
    try:
        evaluator.scalar(scalar, path)
    except LaunchError:
        if tree is None or node_at(tree, path) is scalar:
            raise


def may_be_reference(node: Any) -> bool:
    """Whether the node at a key of `run` can name an artifact: a text, or a mapping `{hf: …}`."""
    return isinstance(node, Scalar) or (isinstance(node, dict) and "hf" in node)


def reference_in(key: str, node: Any, used: Mapping[str, Scalar], known: Evaluator) -> Reference | None:
    """The artifact that a key of `run` names; None if it names none.

    Args:
        key: The key.
        node: The node at the key.
        used: The keys that `${art:KEY…}` uses. Their values name an artifact, whatever they look like.
        known: An evaluator that knows the values of `${oc.env:…}`, too.

    Raises:
        LaunchError: The value is malformed, or not known before the job starts.
    """
    if isinstance(node, dict) and "hf" in node:
        from nemotron_exec.artifacts.hub import parse_hub_mapping

        given = plain_value(node, ("run", key), known)
        assert isinstance(given, dict)
        return parse_hub_mapping(key, given, _first_scalar(node).origin)
    if not isinstance(node, Scalar):
        return None
    if key not in used and _ADDRESS_KEY.search(key) and _ADDRESS.match(node.value):
        return None
    if key not in used and not (looks_like_reference(node.value) or node.is_expression):
        return None
    result = known.scalar(node, ("run", key))
    text = result.value if isinstance(result, Value) else None
    if key not in used:
        if not isinstance(text, str) or not looks_like_reference(text):
            return None
    elif not isinstance(text, str) or not text.strip():
        raise LaunchError(
            f"run.{key} ({node.origin}) to name an artifact, as ${{art:{key},…}} uses it",
            result.why if isinstance(result, Kept) else f"it is {text!r}",
            "Write name:version",
        )
    if "/" in text:
        from nemotron_exec.artifacts.hub import SCHEME, is_hub_id, parse_hub_id, parse_hub_text

        if text.strip().startswith(SCHEME):
            return parse_hub_text(key, text, node.origin)
        if is_hub_id(text.strip()):
            return parse_hub_id(key, text.strip(), node.origin)
    reference = parse_reference(key, text, node.origin)
    return replace(reference, optional=True) if key not in used and may_be_another(text) else reference


def _first_scalar(node: Mapping[Any, Any]) -> Scalar:
    return next(_scalars([node["hf"], *node.values()]))


def refuse_contested(root: Root, overrides: Sequence[Override], found: Mapping[str, Reference]) -> None:
    """Refuse two versions of one artifact in a Hydra config: Hydra chooses between them only in the job.

    Raises:
        LaunchError: A group gives an artifact another version.
    """
    said = {override.path for override in overrides if override.is_about_run}
    for document in root.chosen:
        for key, scalar in hydra.run_of(document).items():
            reference = found.get(str(key))
            if reference is None or ("run", key) in said or not isinstance(scalar, Scalar):
                continue
            if scalar.value != reference.text:
                raise LaunchError(
                    f"run.{key} ({reference.origin}) to be one artifact",
                    f"it is {reference.text} there, and {scalar.value} in {scalar.origin}, and Hydra decides "
                    "only in the job which of them counts",
                    f"Say which on the command line: run.{key}={scalar.value}",
                )


def refuse_two_versions(first: Reference, other: Reference) -> None:
    """Refuse two versions of one artifact in two configs of a command: only the program knows how it merges them.

    Raises:
        LaunchError: Always.
    """
    raise LaunchError(
        f"run.{first.key} to be one artifact",
        f"it is {first.text} in {first.origin}, and {other.text} in {other.origin}",
        f"Say which on the command line, run.{first.key}={other.text}, or give one of the two another key",
    )


def refuse_unknown_keys(root: Root, used: Mapping[str, Scalar], found: Mapping[str, Reference]) -> None:
    """Refuse a key of `${art:KEY,…}` that names no artifact.

    Raises:
        LaunchError: A key names no artifact.
    """
    for key, scalar in used.items():
        if key in found or scalar.document in root.groups:
            continue  # a group that is not selected may use keys that its own experiment defines
        run = root.tree.get("run") if isinstance(root.tree, dict) else None
        raise _unknown_key(key, scalar, run if isinstance(run, dict) else None)


def _unknown_key(key: str, scalar: Scalar, run: Mapping[Any, Any] | None) -> LaunchError:
    """Why `${art:KEY…}` finds nothing: there is no `run`, KEY is no text there, or KEY is misspelt."""
    wanted = f"to resolve {scalar.value.strip()} ({scalar.origin})"
    if run is None:
        remedy = f"Add `run: {{{key}: NAME:latest}}` to the config, or give --artifact {key}=NAME:latest"
        return LaunchError(wanted, "the config has no section `run`", remedy)
    if key in run and key not in NO_REFERENCES and not isinstance(run[key], Scalar):
        node = run[key]
        kind = "mapping" if isinstance(node, dict) else "list"
        first = next(_scalars(node), None)
        where = f" ({first.origin})" if first is not None else ""
        name = node.get("name") if isinstance(node, dict) else first
        named = name.value if isinstance(name, Scalar) and name.value else "NAME"
        remedy = f"Write `{key}: {named if ':' in named else named + ':latest'}`"
        return LaunchError(wanted, f"run.{key}{where} is a {kind}, and an artifact is one text", remedy)
    from nemotron_exec.nearest import did_you_mean

    names = [str(name) for name in run if name not in NO_REFERENCES]
    listed = f"Keys under run: {', '.join(names) or 'none'}"
    return LaunchError(
        wanted, f"there is no artifact {key!r} under run", " ".join(filter(None, (did_you_mean(key, names), listed)))
    )


def _scalars(node: Any) -> Iterator[Scalar]:
    """Every scalar in a part of the config, in its order."""
    if isinstance(node, Scalar):
        yield node
    elif isinstance(node, (dict, list)):
        for inner in node.values() if isinstance(node, dict) else node:
            yield from _scalars(inner)
