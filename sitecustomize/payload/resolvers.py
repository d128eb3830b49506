"""`nemotron_exec.resolvers`: `${art:NAME,FIELD}` in a script that registers its resolvers itself.

Under the launcher the answer is there already, and nothing is asked again; without it each process asks for itself.
Needs OmegaConf, which the script has.
"""

from __future__ import annotations

import functools
import json
import os
import re

from . import field, handoff, manifest
from .reference import looks_like_reference

__all__ = ["clear_artifact_cache", "register_resolvers", "register_resolvers_from_config"]

MODES = ("active_run", "pre_init", "manifest", "local")

# As nemo_rl/utils/config.py `register_omegaconf_resolvers` and the launcher's evaluate.py define them.
ARITHMETIC = {
    "add": lambda a, b: a + b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "max": lambda a, b: max(a, b),
}

_artifacts = {}


def register_resolvers_from_config(
    config,
    artifacts_key="run",
    *,
    replace=True,
    mode=None,
    pre_init_patch_http_digest=False,  # noqa: ARG001
):
    """Resolve the artifacts that a section of `config` names, and register `art` and `manifest` with OmegaConf.

    Args:
        config: An OmegaConf config, a dictionary, or the path of a YAML file.
        artifacts_key: Dotted path of the section.
        replace: Whether resolvers of these names that are there already are replaced.
        mode: "active_run" uses `wandb.run`, "pre_init" `wandb.Api()`, "manifest" (also "local") the manifest store.
            Default: what the launcher chose, else "pre_init" where a W&B project is configured, else "manifest".
        pre_init_patch_http_digest: Accepted for scripts written for NVIDIA's kit; nothing is patched for it.

    Returns:
        Qualified names of the artifacts in W&B, for `patch_wandb_init_for_lineage`.

    Raises:
        KeyError: An artifact or version that does not exist in the manifest store.
        ValueError: A mode that does not exist.
    """
    from omegaconf import OmegaConf

    if isinstance(config, (str, os.PathLike)):
        config = OmegaConf.load(os.fspath(config))
    elif not OmegaConf.is_config(config):
        config = OmegaConf.create(config)
    section = OmegaConf.select(config, artifacts_key, default=None)
    plain = OmegaConf.to_container(section, resolve=False) if OmegaConf.is_dict(section) else {}
    named = {str(key): value for key, value in plain.items()} if isinstance(plain, dict) else {}
    used = _keys_in(OmegaConf.to_container(config, resolve=False))
    artifacts = {
        key: value
        for key, value in named.items()
        if isinstance(value, str) and (key in used or looks_like_reference(value))
    }
    return register_resolvers(artifacts, replace=replace, mode=mode)


def register_resolvers(artifacts=None, *, replace=True, mode=None):
    """Resolve `artifacts` (key to reference), and register `art` and `manifest` with OmegaConf.

    Returns and raises as `register_resolvers_from_config`.
    """
    from omegaconf import OmegaConf

    mode = mode or _default_mode()
    if mode not in MODES:
        raise ValueError("mode must be one of %s, and is %r" % (", ".join(MODES), mode))
    for key, reference in (artifacts or {}).items():
        _artifacts[key] = _from_launcher(key, reference) or _resolve(key, reference, mode)
    for name, resolver in (("art", resolve_art), ("manifest", resolve_manifest)):
        _register(OmegaConf)(name, resolver, replace=replace)
    names = [one["qualified_name"] for one in _artifacts.values() if one.get("store") == "wandb"]
    return [name for name in names if name]


def clear_artifact_cache():
    """Forget what this process has resolved."""
    _artifacts.clear()


def register_from_launcher(omegaconf):
    """Register our resolvers, `art` and `manifest` from the hand-off; whether there was something to register.

    For a script that loads a config which the launcher could not replace, or that keeps an expression since an override
    bears on it, and registers no resolvers of its own. A script that does may do so without `replace`: ours give way.
    """
    known = {one["key"]: one for one in handoff.read().get("artifacts") or () if isinstance(one, dict)}
    if not known:
        return False
    _artifacts.update(known)
    given = {"art": resolve_art, "manifest": resolve_manifest, **ARITHMETIC}
    config = omegaconf.OmegaConf
    for name, resolver in given.items():
        _register(config)(name, resolver, replace=True)
    # OmegaConf.clear_resolver is of 2.2.
    clear = getattr(config, "clear_resolver", None) or omegaconf.basecontainer.BaseContainer._resolvers.pop
    # The others of OmegaConf's methods, deprecated ones among them, call these.
    for method in {_register(config).__name__, "legacy_register_resolver"}:
        if hasattr(config, method):
            setattr(config, method, staticmethod(_giving_way(clear, getattr(config, method), given)))
    return True


def _register(config):
    """OmegaConf's own method. That of 2.4 has the name of one that was deprecated before, and takes two arguments."""
    newest = getattr(getattr(config, "register_resolver", None), "__kwdefaults__", None) or ()
    return config.register_resolver if "replace" in newest else config.register_new_resolver


def _giving_way(clear, original, given):
    @functools.wraps(original)
    def register(name, resolver, **options):
        if given.pop(name, None) is not None:
            clear(name)
        return original(name, resolver, **options)

    return register


def resolve_art(name, field_name="path"):
    """`${art:NAME,FIELD}`.

    Raises:
        KeyError: No such artifact or field; the message names those that there are.
    """
    if name not in _artifacts:
        raise KeyError("no artifact %r; the config names %s" % (name, ", ".join(sorted(_artifacts)) or "none"))
    try:
        return field.look_up(_artifacts[name], field_name)
    except KeyError:
        have = ", ".join(field.names(_artifacts[name]))
        raise KeyError("artifact %r has no field %r; it has %s" % (name, field_name, have)) from None


def resolve_manifest(directory, key):
    """`${manifest:DIRECTORY,KEY}`: a value of DIRECTORY/manifest.json, as text (nemo_runspec/config/resolvers.py)."""
    with open(os.path.join(directory, "manifest.json")) as stream:
        return str(json.load(stream)[key])


def _default_mode():
    backend = os.environ.get("NEMOTRON_EXEC_BACKEND")
    if backend:
        return "manifest" if backend == "manifest" else "pre_init"
    return "pre_init" if os.environ.get("WANDB_PROJECT") else "manifest"


def _from_launcher(key, reference):
    """What the launcher has pinned for this key, if it was the same reference."""
    for one in handoff.read().get("artifacts") or ():
        if isinstance(one, dict) and one.get("key") == key and one.get("reference") == reference:
            return one
    return None


def _resolve(key, reference, mode):
    text = reference[len("art://") :] if reference.startswith("art://") else reference
    name, colon, alias = text.rpartition(":")
    if not colon:
        name, alias = text, "latest"
    if alias.isdigit():
        alias = "v" + alias
    if mode in ("manifest", "local"):
        return _from_manifest(key, reference, name, alias)
    return _from_wandb(key, reference, "%s:%s" % (name, alias), mode)


def _from_manifest(key, reference, name, alias):
    try:
        record = manifest.read_version(manifest.default_root(os.environ), name, alias)
    except manifest.StoreError as error:
        raise KeyError("run.%s (%s): %s" % (key, reference, error)) from None
    number, described, fields = record[0], record[1], record[2]
    metadata = described.get("metadata") or {}
    return {
        "key": key,
        "reference": reference,
        "store": "manifest",
        "name": name,
        "version": "v%d" % number,
        "type": described.get("type") or "",
        "path": described["path"],
        "qualified_name": "%s:v%d" % (name, number),
        "iteration": metadata.get("iteration"),
        "fields": fields,
        "metadata": metadata,
    }


def _from_wandb(key, reference, text, mode):
    import wandb

    project, entity = os.environ.get("WANDB_PROJECT"), os.environ.get("WANDB_ENTITY")
    if mode == "active_run":
        if wandb.run is None:
            raise ValueError("mode 'active_run' needs a run: call wandb.init() first, or use mode 'pre_init'")
        artifact = wandb.run.use_artifact(text)
    else:
        if "/" not in text and project:
            text = "/".join(part for part in (entity, project, text) if part)
        artifact = wandb.Api().artifact(text)
    metadata = dict(artifact.metadata or {})
    path = metadata.get("absolute_path")
    fields = {}
    iteration = metadata.get("iteration")
    if path:
        base = os.path.basename(path.rstrip("/"))
        if base.startswith("iter_") and base[5:].isdigit():
            # The legacy form: the path of one iteration instead of the save directory.
            path, iteration = os.path.dirname(path.rstrip("/")), int(base[5:]) if iteration is None else iteration
    else:
        path = artifact.download()
        try:
            with open(os.path.join(path, "metadata.json")) as stream:
                fields = json.load(stream)
        except (OSError, ValueError):
            fields = {}
    return {
        "key": key,
        "reference": reference,
        "store": "wandb",
        "name": artifact.name.rpartition(":")[0] or artifact.name,
        "version": artifact.version,
        "type": artifact.type,
        "path": path,
        # Pinned, whatever alias was asked for; of a registry, the artifact that it links to.
        "qualified_name": "/".join((artifact.source_entity, artifact.source_project, artifact.source_name)),
        "iteration": iteration,
        "fields": fields if isinstance(fields, dict) else {},
        "metadata": metadata,
    }


def _keys_in(tree):
    """The NAMEs of every plain `${art:NAME…}` in a config."""
    found = set()
    pending = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            pending.extend(node.values())
        elif isinstance(node, (list, tuple)):
            pending.extend(node)
        elif isinstance(node, str):
            found.update(re.findall(r"\$\{\s*art\s*:\s*([\w.\-]+)", node))
    return found
