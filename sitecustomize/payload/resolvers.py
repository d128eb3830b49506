"""`nemotron_exec.resolvers`: `${art:NAME,FIELD}` in a script that registers its resolvers itself.

Under the launcher, the hand-off has the answer, and no store is asked. Without the launcher, each process asks the
store itself. The module needs OmegaConf, which the script has.
"""

from __future__ import annotations

import functools
import json
import os
import re

from . import artifact, field, handoff, job, notice
from .manifest import files as manifest_files
from .manifest import names as manifest_names
from .manifest import read
from .paths import host
from .reference import looks_like_reference, may_be_another

__all__ = ["clear_artifact_cache", "register_resolvers", "register_resolvers_from_config"]

MODES = ("active_run", "pre_init", "manifest", "local")

# Defined as in `register_omegaconf_resolvers` of nemo_rl/utils/config.py and in the launcher's evaluate.py.
ARITHMETIC = {
    "add": lambda a, b: a + b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "max": lambda a, b: max(a, b),
}


class _Resolved:
    """The resolved artifacts of this process, by key, for `${art:…}`."""

    def __init__(self):
        self.by_key = {}

    def inherit(self, parents):
        self.by_key.update(parents.by_key)


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
        replace: Whether to replace resolvers that are registered under these names.
        mode: "active_run" uses `wandb.run`, "pre_init" `wandb.Api()`, "manifest" (also "local") the manifest store.
            Default: the launcher's choice, else "pre_init" where a W&B project is configured, else "manifest".
        pre_init_patch_http_digest: Accepted for scripts written for NVIDIA's kit; it has no effect.

    Returns:
        Qualified names of the artifacts in W&B, for `patch_wandb_init_for_lineage`.

    Raises:
        KeyError: An artifact or version that does not exist in the manifest store.
        ValueError: A mode that does not exist.
    """
    # Imported only in a script's own call: no patch and no interpreter start comes here.
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
    uncertain = [key for key, value in artifacts.items() if key not in used and may_be_another(value)]
    return _register_all(artifacts, replace, mode, uncertain)


def register_resolvers(artifacts=None, *, replace=True, mode=None):
    """Resolve `artifacts` (key to reference), and register `art` and `manifest` with OmegaConf.

    Returns and raises as `register_resolvers_from_config`.
    """
    return _register_all(artifacts or {}, replace, mode, ())


def _register_all(artifacts, replace, mode, uncertain):
    """`uncertain` are the keys that no `${art:…}` uses, and whose value may be an image or a host."""
    # Imported only in a script's own call, as above.
    from omegaconf import OmegaConf

    mode = mode or _default_mode()
    if mode not in MODES:
        raise ValueError("mode must be one of %s, and is %r" % (", ".join(MODES), mode))
    resolved = job.part(_Resolved).by_key
    for key, reference in artifacts.items():
        try:
            resolved[key] = _from_launcher(key, reference) or _resolve(key, reference, mode)
        except Exception as error:
            if key not in uncertain:
                raise
            notice.warning("run.%s: %s is taken for no artifact: %s" % (key, reference, error))
    for name, resolver in (("art", resolve_art), ("manifest", resolve_manifest)):
        _register(OmegaConf)(name, resolver, replace=replace)
    names = [one["qualified_name"] for one in resolved.values() if one.get("store") == "wandb"]
    return [name for name in names if name]


def clear_artifact_cache():
    """Drop the artifacts that this process has resolved."""
    job.part(_Resolved).by_key.clear()


def register_from_launcher(omegaconf):
    """Register `art`, `manifest` and the arithmetic from the hand-off. Returns whether the hand-off has artifacts.

    Without artifacts only `art` is registered: its error names the missing config, and OmegaConf's does not.

    It is for a script without resolvers of its own whose config still has expressions: the launcher could not replace
    the config, or an override bears on an expression. A script may register its own resolvers without `replace`: these
    resolvers are removed then.
    """
    known = {one["key"]: one for one in handoff.read().get("artifacts") or () if isinstance(one, dict)}
    job.part(_Resolved).by_key.update(known)
    given = {"art": resolve_art, "manifest": resolve_manifest, **ARITHMETIC} if known else {"art": resolve_art}
    config = omegaconf.OmegaConf
    for name, resolver in given.items():
        _register(config)(name, resolver, replace=True)
    # OmegaConf has clear_resolver from 2.2 on.
    clear = getattr(config, "clear_resolver", None) or omegaconf.basecontainer.BaseContainer._resolvers.pop
    # OmegaConf's other methods for registering, also the deprecated ones, call these two.
    for method in {_register(config).__name__, "legacy_register_resolver"}:
        if hasattr(config, method):
            setattr(config, method, staticmethod(_giving_way(clear, getattr(config, method), given)))
    if hasattr(config, "has_resolver") and not known:
        # A script may register its own resolver only if there is none, so hide these.
        config.has_resolver = staticmethod(_denying(config.has_resolver, given))
    return bool(known)


def _register(config):
    """OmegaConf's method for registering. Release 2.4 gives it the name of a method that was deprecated before."""
    newest = getattr(getattr(config, "register_resolver", None), "__kwdefaults__", None) or ()
    return config.register_resolver if "replace" in newest else config.register_new_resolver


def _denying(original, given):
    @functools.wraps(original)
    def has_resolver(name):
        return name not in given and original(name)

    return has_resolver


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
        KeyError: There is no such artifact or field. The message names the existing ones.
    """
    resolved = job.part(_Resolved).by_key
    if name not in resolved:
        if not resolved:
            raise KeyError(
                "nemotron-exec has resolved no config that names the artifact %r: name the file on the command line, "
                "or with nemotron-exec -c FILE" % name
            )
        raise KeyError(
            "nemotron-exec knows no artifact %r, but %s: name the config that has it with nemotron-exec -c FILE"
            % (name, ", ".join(sorted(resolved)))
        )
    try:
        return field.look_up(resolved[name], field_name)
    except KeyError:
        have = ", ".join(field.names(resolved[name]))
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
    """The artifact that the launcher has pinned for this key and the same reference, or None."""
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
        files = manifest_files.open_files(manifest_names.default_root(os.environ))
        record = read.read_version(files, name, alias, localise=host.localise)
        gone = read.missing_data(files, record, host.localise)
    except manifest_names.StoreError as error:
        raise KeyError("run.%s (%s): %s" % (key, reference, error)) from None
    if gone:
        raise KeyError("run.%s (%s): %s:v%d %s" % (key, reference, name, record.number, gone))
    return artifact.describe_record(record, key, reference, name, host.localise)


def _from_wandb(key, reference, text, mode):
    # Imported only if the script itself asks W&B by this API: no patch and no interpreter start comes here.
    import wandb

    project, entity = os.environ.get("WANDB_PROJECT"), os.environ.get("WANDB_ENTITY")
    if mode == "active_run":
        if wandb.run is None:
            raise ValueError("mode 'active_run' needs a run: call wandb.init() first, or use mode 'pre_init'")
        found = wandb.run.use_artifact(text)
    else:
        if "/" not in text and project:
            text = "/".join(part for part in (entity, project, text) if part)
        found = wandb.Api().artifact(text)
    metadata = dict(found.metadata or {})
    path = metadata.get("absolute_path")
    fields = None
    if isinstance(path, str) and path:
        path = path if "://" in path else host.localise(path)
    else:
        path = found.download()
        try:
            with open(os.path.join(path, "metadata.json")) as stream:
                fields = json.load(stream)
        except (OSError, ValueError):
            fields = None
    return artifact.describe(
        key,
        reference,
        "wandb",
        found.source_name.rpartition(":")[0],
        found.version if ":" not in found.source_name else found.source_name.rpartition(":")[2],
        path,
        # Pin the version that the alias means now. For a registry, take the artifact to which it links.
        "/".join((found.source_entity, found.source_project, found.source_name)),
        found.type,
        fields=fields,
        metadata=metadata,
    )


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
