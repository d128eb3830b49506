"""Finds the Hugging Face repositories that a config names by their id, outside of `run:`.

No schema marks the values that are ids. A value counts if its key is a usual one and its form is `org/name`. The keys
are those of NVIDIA's recipes for Megatron-Bridge, NeMo-RL and Automodel: `model_name`, `tokenizer.name`,
`hf_model_path`, `dataset_name`.

A value taken for an id by mistake costs the ranks their offline mode, and one line tells the user. A missed id would
stop the job.
"""

from __future__ import annotations

import os

from nemotron_exec.artifacts.hub import SCHEME, is_hub_id
from nemotron_exec.config.evaluate import Evaluator, Kept, Path, Value
from nemotron_exec.config.override import value_of
from nemotron_exec.config.root import Root, scalars_of
from nemotron_exec.document.document import Document, tree_of
from nemotron_exec.errors import LaunchError
from nemotron_exec.frozen import dataclass
from nemotron_exec.sitecustomize.payload.lazy import pattern

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from nemotron_exec.command.override import Override
    from nemotron_exec.document.document import Scalar
    from nemotron_exec.origin import Origin

__all__ = ["HubId", "find_hub_ids"]

_DATA = frozenset({"dataset", "datasets", "data"})
_MODEL = frozenset({
    "model", "models", "tokenizer", "tokenizers", "processor", "hf", "huggingface", "pretrained", "teacher", "student",
    "draft", "reward", "critic", "encoder", "backbone", "repo",
})  # fmt: skip
# Keys with no meaning of their own: the key above them decides.
_PLAIN = frozenset({"name", "path", "id", "handle", "identifier", "source"})
_PATHS = frozenset({
    "dir", "dirs", "directory", "folder", "file", "files", "root", "save", "load", "output", "log", "logs", "cache",
    "prefix", "image", "container", "url", "uri", "project", "entity", "group", "type", "class", "target", "format",
})  # fmt: skip
# Keys whose value is an id even if it has no slash (`gpt2`, `squad`).
_EXACT = frozenset({
    "model_name", "model_id", "hf_model_id", "pretrained_model_name_or_path", "model_name_or_path", "tokenizer_name",
    "dataset_name", "dataset_id", "path_or_dataset_id", "path_or_dataset", "hf_dataset", "hf_dataset_id", "repo_id",
    "hf_path", "hf_model_path", "hf_model_name_or_path",
})  # fmt: skip
_SUFFIX = pattern(
    r"\.(?:jsonl?|ya?ml|py|sh|txt|csv|tsv|parquet|arrow|bin|idx|pth?|ckpt|nemo|safetensors|gguf|model|sqsh|toml)\Z"
)
_WORDS = pattern(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])")
_SINGLE = pattern(r"[A-Za-z0-9][\w.\-]*\Z")
# A class of the framework, which reads local files (NeMo-RL's ResponseDataset, BinaryPreferenceDataset).
_CLASS = pattern(r"[A-Z]\w*Dataset\Z")


@dataclass(frozen=True)
class HubId:
    """A value that names a repository, or may name one.

    Attributes:
        id: `org/name`, or the expression where the value is not known before the job starts.
        kind: "model", "dataset", or "file" for a `hf://…` that the job itself reads.
        key: Path of the value, `policy.model_name`.
        origin: File and line.
        known: Whether the value is an id. If not, only the job knows the value.
    """

    id: str
    kind: str
    key: str
    origin: Origin
    known: bool = True


def find_hub_ids(
    roots: Sequence[Root], overrides: Iterable[Override], evaluator: Callable[[int], Evaluator]
) -> list[HubId]:
    """Every id that the config names outside of `run:`, in the order of the files.

    Args:
        roots: The config arguments, merged.
        overrides: The overrides of the command. Their ids count, and the values that they replace do not.
        evaluator: Returns the evaluator of a root by its number; it knows the artifacts and the environment.
    """
    said = [override for override in overrides if not override.is_about_run]
    gone = {tuple(map(str, override.path)) for override in said}
    found: dict[tuple[str, str, str], HubId] = {}
    for number, root in enumerate(roots):
        known = evaluator(number)
        for tree in (root.tree, *(document.tree() for document in root.groups)):
            for path, scalar in scalars_of(tree, ()):
                keys = tuple(map(str, path))
                if keys[:1] != ("run",) and not any(keys[:length] in gone for length in range(1, len(keys) + 1)):
                    _add(found, path, scalar, known)
    for override in said:
        if override.sign != "~" and override.text:
            tree = tree_of(value_of(override), Document(override.word, override.text))
            for path, scalar in scalars_of(tree, override.path):
                _add(found, path, scalar, evaluator(0))
    return list(found.values())


def _add(found: dict[tuple[str, str, str], HubId], path: Path, scalar: Scalar, evaluator: Evaluator) -> None:
    kind = _kind_of(path)
    if kind is None and SCHEME not in scalar.value:
        return
    try:
        result = evaluator.scalar(scalar, path)
    except LaunchError:
        return  # the launch itself reports it, if it matters to the job
    where = ".".join(map(str, path))
    if isinstance(result, Kept):
        # If it stands for another key of the config, that key's own value is looked at.
        if "oc.env" in scalar.value:
            found[scalar.value, "", where] = HubId(scalar.value, kind or "model", where, scalar.origin, known=False)
        return
    text = result.value if isinstance(result, Value) else None
    if not isinstance(text, str):
        return
    if text.startswith(SCHEME):
        parts = text[len(SCHEME) :].partition("@")[0].split("/")
        name = "/".join(parts[:3] if parts[0] == "datasets" else parts[:2])
        found[name, "file", where] = HubId(name, "file", where, scalar.origin)
    elif kind is not None and _is_id(str(path[-1]), text):
        found[text, kind, where] = HubId(text, kind, where, scalar.origin)


def _kind_of(path: Path) -> str | None:
    """The kind of repository, "model" or "dataset", whose id stands at a key; None for any other key."""
    names = [str(key) for key in path if not isinstance(key, int)]
    if not names:
        return None
    words = [[word.lower() for word in _WORDS.findall(name)] for name in names[-2:]]
    own = words[-1]
    if own and own[-1] in _PATHS and names[-1] not in _EXACT:
        return None
    # A plain `name` says nothing: then the key above says it.
    looked_at = set(words[0] if set(own) <= _PLAIN else own)
    if looked_at & _DATA:
        return "dataset"
    return "model" if looked_at & _MODEL or names[-1] in _EXACT else None


def _is_id(key: str, text: str) -> bool:
    if _SUFFIX.search(text) or os.path.exists(text):
        return False
    if is_hub_id(text):
        return True
    return key in _EXACT and _SINGLE.match(text) is not None and not _CLASS.match(text)
