"""The Hugging Face repositories of a job: on every node, and without network access for its ranks."""

from __future__ import annotations

import os

from nemotron_exec.artifacts.hub import HUB, hub_name
from nemotron_exec.artifacts.reference import Reference
from nemotron_exec.errors import LaunchError
from nemotron_exec.origin import Origin

TYPE_CHECKING = False  # typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nemotron_exec.artifacts.artifact import Artifact
    from nemotron_exec.config.config import Config
    from nemotron_exec.config.hub_ids import HubId
    from nemotron_exec.message import Messages
    from nemotron_exec.options import Options

__all__ = ["bring", "hub_variables"]


def bring(artifacts: Sequence[Artifact], chosen: Options, environ: Mapping[str, str], messages: Messages) -> None:
    """Download the files of Hugging Face artifacts to this node, if another launcher or an earlier start resolved them.

    A node with its own cache downloads the same commit. If the files are in the cache, no request is made.

    Raises:
        LaunchError: The files cannot be downloaded, or this node's cache has another path than the config names.
    """
    references = [_reference_of(artifact) for artifact in artifacts if artifact.store == HUB]
    if not references:
        return
    from nemotron_exec.stores.huggingface.store import HuggingFaceStore

    store = HuggingFaceStore(environ=environ, cache_dir=chosen.cache_dir, messages=messages)
    here = store.resolve(references, progress=lambda *_: None, timeout=chosen.timeout)
    there = {artifact.key: artifact for artifact in artifacts}
    for found in here:
        expected = there[found.key].path
        if os.path.realpath(found.path) != os.path.realpath(expected):
            raise LaunchError(
                f"run.{found.key}: to have {found.qualified_name} at {expected}, as the launcher that leads has",
                f"the cache of this node has it at {found.path}",
                "Give HF_HOME, HF_HUB_CACHE and --cache-dir the same value on all nodes",
            )


def hub_variables(
    config: Config,
    artifacts: Sequence[Artifact],
    directory: str,
    chosen: Options,
    environ: Mapping[str, str],
    messages: Messages,
) -> tuple[dict[str, str], dict[str, str]]:
    """The job's variables for the hub: those that the job may set itself, and those that it may not.

    Args:
        config: The config, for the ids that it names.
        artifacts: All inputs of the job.
        directory: The directory for the job's view of the cache.
        chosen: The options, for `--cache-dir`.
        environ: The environment. The job's own setting of the offline variables wins.
        messages: For the line that tells why the ranks will ask the hub.
    """
    pinned = [artifact for artifact in artifacts if artifact.store == HUB]
    if not pinned:
        return {}, {}
    from nemotron_exec.stores.huggingface.cache import OFFLINE, OUTER, HubCache, cache_directory, is_on
    from nemotron_exec.stores.huggingface.view import make_view

    root, tell = cache_directory(environ, chosen.cache_dir)
    defaults = {"HF_HUB_CACHE": root} if tell else {}
    outer = environ.get(OUTER) == "1"
    setting = None if outer else environ.get("HF_HUB_OFFLINE")
    if setting is not None and not is_on(setting):
        return defaults, {}
    named = config.hub_ids({artifact.key: artifact for artifact in artifacts})
    why = next(filter(None, (_why_online(one, pinned) for one in named)), None)
    if why is not None and setting is None:
        messages.warning(f"the ranks may ask the Hugging Face hub, so HF_HUB_OFFLINE is not set: {why}")
        # The outer launcher has switched to offline for its own ids. These ranks need the network.
        return defaults, {**dict.fromkeys(OFFLINE, "0"), OUTER: "0", "HF_HUB_CACHE": root} if outer else {}
    settings = {OUTER: "1"} if setting is None else {}
    if any(one.kind == "model" and one.known for one in named):
        settings["HF_HUB_CACHE"] = make_view(os.path.join(directory, "hub"), HubCache(root), pinned)
    return defaults | dict.fromkeys(OFFLINE, "1"), settings


def _why_online(named: HubId, pinned: Sequence[Artifact]) -> str | None:
    """Why the ranks cannot work offline with an id of the config; None if they can."""
    where = f"{named.key} ({named.origin})"
    own = [artifact for artifact in pinned if (artifact.type, artifact.name) == (named.kind, named.id)]
    if not named.known:
        return f"{where} is {named.id}, which only the job knows. Write `KEY: hf://…` under run: and ${{art:KEY,id}}"
    if named.kind == "file":
        return f"{where} reads {named.id} from the hub. Write `KEY: hf://{named.id}` under run: and ${{art:KEY,path}}"
    if named.kind == "dataset":
        # The library `datasets` cannot find a repository in the cache by its id (tried with 5.2).
        key = own[0].key if own else "KEY"
        name = hub_name("dataset", named.id)
        return f"{where} is the data set {named.id}. Write `{key}: {name}` under run: and ${{art:{key},path}}"
    if not own:
        return f"{where} is {named.id}. Write `KEY: hf://{named.id}` under run: and ${{art:KEY,id}}"
    commits = sorted({str(artifact.digest) for artifact in own})
    if len(commits) > 1:
        return f"{where} is {named.id}, which run: pins to {' and '.join(commits)}. Write ${{art:{own[0].key},path}}"
    return None


def _reference_of(artifact: Artifact) -> Reference:
    fields = artifact.fields
    return Reference(
        artifact.key,
        artifact.reference,
        tuple(artifact.name.split("/")),
        artifact.pinned_alias,
        Origin("the answer of the job"),
        HUB,
        artifact.type,
        include=tuple(fields.get("include", ())),
        exclude=tuple(fields.get("exclude", ())),
        remote_code=bool(fields.get("trust_remote_code", False)),
    )
