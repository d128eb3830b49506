"""`${art:KEY,pretrained_path}`: a directory in which Megatron-Bridge finds only the pinned iteration.

`checkpoint.pretrained_checkpoint` takes a save directory, and loads the newest iteration in it, which its tracker files
name. `ckpt_step` does not help: it needs `checkpoint.load`, from which the job itself resumes. Megatron-Bridge 0.6.2
accepts the directory of an iteration, but 0.3.1 silently does not.

So the pinned iteration gets a directory of its own, with a link to the data and trackers that name it. This was tried
with the real `finetune()` of 0.3.1 and 0.6.2.
"""

from __future__ import annotations

import contextlib
import os
import re

from nemotron_exec.frozen import replace
from nemotron_exec.sitecustomize.payload.paths.absolute import absolute

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from nemotron_exec.artifacts.artifact import Artifact
    from nemotron_exec.message import Messages

__all__ = ["FIELD", "texts_of", "warn_of_newer", "with_pretrained_paths"]

FIELD = "pretrained_path"
# Megatron-Bridge and Megatron-LM read these files in a save directory: a number as text, and the state of the training.
_TRACKER = "latest_checkpointed_iteration.txt"
_STATE = ("latest_train_state.pt", "train_state.pt")
# Megatron-Bridge reads the loaded checkpoint's name in W&B from this file.
_WANDB = "latest_wandb_artifact_path.txt"


def texts_of(paths: Iterable[str]) -> list[str]:
    """The texts of the configs that still exist."""
    texts = []
    for path in paths:
        with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
            texts.append(file.read())
    return texts


def with_pretrained_paths(artifacts: Sequence[Artifact], directory: str, texts: Iterable[str]) -> Sequence[Artifact]:
    """The artifacts. Those with iterations get the field `pretrained_path`, if a text uses it.

    Args:
        artifacts: The pinned artifacts.
        directory: Private directory of the job's answer, which every node sees.
        texts: The texts that may use the field: configs and words of the command.
    """
    if not any(FIELD in text for text in texts):
        return artifacts
    return [_with_path(artifact, os.path.join(directory, "pretrained", artifact.key)) for artifact in artifacts]


def _with_path(artifact: Artifact, directory: str) -> Artifact:
    fields = {name: value for name, value in artifact.fields.items() if name != FIELD}
    iteration = _iteration_directory(artifact)
    if iteration is not None:
        # Megatron-Bridge uses the directory's name as the name of the artifact that it loads.
        made = os.path.join(directory, os.path.basename(artifact.path.rstrip("/")) or artifact.key)
        os.makedirs(made, mode=0o700, exist_ok=True)
        os.symlink(iteration, os.path.join(made, os.path.basename(iteration)))
        for link, target in ((_STATE[0], f"{iteration}/{_STATE[1]}"), (_WANDB, f"{artifact.path}/{_WANDB}")):
            if os.path.isfile(target):
                os.symlink(target, os.path.join(made, link))
        with open(os.path.join(made, _TRACKER), "x", encoding="ascii") as tracker:
            tracker.write(str(artifact.iteration))
        fields[FIELD] = made
    return replace(artifact, fields=fields)


def _iteration_directory(artifact: Artifact) -> str | None:
    """The directory of a checkpoint's pinned iteration in the Megatron format; None where it does not exist here."""
    if artifact.iteration is None or "://" in artifact.path:
        return None
    path = absolute(os.path.join(artifact.path, f"iter_{artifact.iteration:07d}"))
    return path if os.path.isdir(path) else None


def warn_of_newer(artifacts: Sequence[Artifact], texts: Sequence[str], messages: Messages) -> None:
    """Warn of each model whose save directory would load another iteration than the pinned one.

    A config that uses `iteration`, too, gets no warning: it tells the framework the iteration.
    """
    for artifact in artifacts:
        if _iteration_directory(artifact) is None or not _uses(texts, artifact.key, "path"):
            continue
        try:
            with open(os.path.join(artifact.path, _TRACKER), encoding="ascii") as tracker:
                newest = tracker.read(32).strip()
        except (OSError, ValueError):
            continue
        if newest == str(artifact.iteration) or _uses(texts, artifact.key, "iteration"):
            continue
        messages.warning(
            f"{artifact.key}: {artifact.name}:{artifact.version} is iteration {artifact.iteration}, and a framework "
            f"that is given {artifact.path} loads iteration {newest}. Write ${{art:{artifact.key},{FIELD}}}"
        )


def _uses(texts: Sequence[str], key: str, field: str) -> bool:
    """Whether a text has `${art:KEY,FIELD}`; FIELD is `path` where it is left out."""
    said = rf"\s*,\s*{field}\s*" if field != "path" else r"\s*(?:,\s*path\s*)?"
    expression = re.compile(r"\$\{\s*art\s*:\s*" + re.escape(key) + said + r"\}")
    return any(expression.search(text) for text in texts)
