"""NVIDIA's kit: in a job of nemotron-exec, its functions answer from the hand-off and log nothing a second time.

The recipes of NVIDIA's Nemotron look their artifacts up again, replace `wandb.init` and replace the frameworks'
callbacks. The patch changes these functions:

* `register_resolvers` (and `register_resolvers_from_config` above it) and `resolve_artifact_pre_init` return the
  versions that the launcher has pinned, and ask a store only for other references;
* `patch_*_checkpoint_logging*` leave the work to the patches of nemotron-exec, and pass the artifact's name to them;
* `patch_wandb_init_for_lineage` passes inputs and tags to the patch for W&B.

The data preparation's `log_artifact` and the kit's workarounds for wandb are not touched.

The Nemotron CLI sends a cluster one `main.py` that contains the kit. Then the functions lie in `__main__`, which no
import hook sees. `adopt_main` finds them there, when the script loads a config or imports wandb.

Known: nemotron.kit.wandb_kit and nemo_runspec.config.resolvers of August 2026.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
import types

from .. import field, handoff, job, notice
from ..checkpoints import script_name
from ..status import INSTALLED, Status

__all__ = ["adopt_main", "apply", "artifact_name_of", "is_from_kit", "resolve_reference"]

NAME = "kit"
MODULES = ("nemotron.kit.wandb_kit", "nemo_runspec.config.resolvers")

_MARK = "_nemotron_exec_kit"
_MEGATRON = (
    "patch_wandb_checkpoint_logging",
    "patch_manifest_checkpoint_logging",
    "patch_checkpoint_logging_both",
)
_NEMO_RL = (
    "patch_nemo_rl_checkpoint_logging",
    "patch_manifest_nemo_rl_checkpoint_logging",
    "patch_nemo_rl_checkpoint_logging_both",
)
_TELLING = (*_MEGATRON, *_NEMO_RL, "patch_wandb_init_for_lineage", "register_resolvers_from_config")


def apply(module):
    """Replace the functions that `module` has. Returns a `Status`."""
    _replace_in(vars(module), vars(module))
    return Status(NAME, INSTALLED, "")


def adopt_main():
    """Replace the kit's functions in `__main__`, where the Nemotron CLI has written the kit into the script."""
    names = getattr(sys.modules.get("__main__"), "__dict__", None) or {}
    if not any(name in names for name in _TELLING):
        return
    try:
        _replace_in(names, names)
        for module in (names.get("__nemotron_namespaces") or {}).values():
            _replace_in(vars(module), names)
    except Exception as error:
        if notice.strict():
            raise
        notice.warning("the kit's functions in %s are not replaced: %r" % (names.get("__file__"), error))


def is_from_kit(function):
    """Whether this function is one with which the kit replaces a framework's function."""
    maker = getattr(function, "__qualname__", "").partition(".<locals>.")[0]
    return maker in _MEGATRON or maker in _NEMO_RL


def artifact_name_of(function):
    """The artifact's name in the closure of a function of the kit, or None."""
    code, closure = getattr(function, "__code__", None), getattr(function, "__closure__", None) or ()
    for name, cell in zip(getattr(code, "co_freevars", ()), closure):
        if name == "artifact_name" and isinstance(cell.cell_contents, str):
            return cell.cell_contents
    return None


def resolve_reference(key, reference):
    """The pinned artifact for a reference, as in the hand-off; None if the launcher did not resolve it.

    Args:
        key: The key under `run:`; None if the caller has only the reference.
        reference: The reference in the config or the script: with an alias, with `vN`, or the pinned qualified name.
    """
    known = [one for one in handoff.read().get("artifacts") or () if isinstance(one, dict)]
    wanted = _normal(reference)
    for one in known:
        if key in (None, one.get("key")) and wanted in _texts(one):
            return one
    return next((one for one in known if wanted in _texts(one)), None)


def _texts(one):
    """All texts that refer to a pinned artifact."""
    qualified, name = str(one.get("qualified_name") or ""), str(one.get("name") or "")
    return {_normal(one.get("reference")), qualified, "%s:%s" % (name, one.get("version"))}


def _normal(reference):
    text = str(reference or "")
    text = text[len("art://") :] if text.startswith("art://") else text
    name, colon, alias = text.rpartition(":")
    if not colon:
        return text + ":latest"
    return "%s:v%s" % (name, alias) if alias.isdigit() else text


def _replace_in(names, own):
    """Replace the kit's functions in a namespace, under all their names.

    Args:
        names: The namespace.
        own: Only functions with these globals are replaced: functions that a script has imported from elsewhere stay.
    """
    for name, make in _REPLACEMENTS.items():
        original = names.get(name)
        if not isinstance(original, types.FunctionType) or original.__globals__ is not own or hasattr(original, _MARK):
            continue
        replacement = make(original, own)
        setattr(replacement, _MARK, original)
        for other, value in list(names.items()):
            if value is original:
                names[other] = replacement


def _from_config(original, _names):
    @functools.wraps(original)
    def register_resolvers_from_config(config, artifacts_key="run", **options):
        # Under `run` the key decides: the reference may be an alias that has moved, or `--artifact` may have replaced
        # it.
        calls = job.part(_ConfigCalls).of_run_section
        calls.append(artifacts_key == "run")
        try:
            return original(config, artifacts_key, **options)
        finally:
            calls.pop()

    return register_resolvers_from_config


class _ConfigCalls:
    """For each running call of `register_resolvers_from_config`, whether it is about the `run` section."""

    def __init__(self):
        self.of_run_section = []


def _registering(original, names):
    @functools.wraps(original)
    def register_resolvers(artifacts=None, **options):
        pinned, unknown = {}, {}
        calls = job.part(_ConfigCalls).of_run_section
        by_key = {one.get("key"): one for one in handoff.read().get("artifacts") or () if isinstance(one, dict)}
        for key, reference in (artifacts or {}).items():
            found = by_key.get(key) if calls and calls[-1] else resolve_reference(key, reference)
            if found is None:
                unknown[key] = reference
            else:
                pinned[key] = found
        # The original registers its resolvers, and looks up the references that the launcher does not know.
        qualified = original(unknown or None, **options)
        registry = names.get("_ARTIFACT_REGISTRY")
        for key, found in pinned.items():
            if isinstance(registry, dict):
                registry[key] = _in_the_kits_form(found)
        if by_key or pinned:
            _register_art(dict({key: one for key, one in by_key.items() if key not in unknown}, **pinned), names)
        mine = [one["qualified_name"] for one in pinned.values() if one.get("store") == "wandb"]
        return mine + [name for name in qualified or () if name not in mine]

    return register_resolvers


def _register_art(pinned, names):
    """`${art:…}` from the pinned artifacts; another key goes to the kit's own resolver."""
    # The kit's module has imported omegaconf already, at its top.
    from omegaconf import OmegaConf

    theirs = names.get("_art_resolver")

    def art(name, field_name="path"):
        if name not in pinned and theirs is not None:
            return theirs(name, field_name)
        try:
            return field.look_up(pinned[name], field_name)
        except KeyError:
            have = ", ".join(field.names(pinned[name])) if name in pinned else ", ".join(sorted(pinned))
            raise KeyError("no %r for ${art:%s}; there is %s" % (field_name, name, have)) from None

    OmegaConf.register_new_resolver("art", art, replace=True)


def _resolving(original, _names):
    @functools.wraps(original)
    def resolve_artifact_pre_init(artifact_ref, **options):
        text = str(artifact_ref)
        project = "/".join(str(options[one]) for one in ("entity", "project") if options.get(one))
        found = resolve_reference(None, text)
        if found is not None and project and ("/" + project + "/") not in "/" + str(found.get("qualified_name")):
            found = None
        return original(artifact_ref, **options) if found is None else _in_the_kits_form(found)

    return resolve_artifact_pre_init


def _in_the_kits_form(one):
    """A pinned artifact in the kit's form (nemo_runspec.config.resolvers, `resolve_artifact_pre_init`)."""
    in_wandb = one.get("store") == "wandb"
    source = one.get("source")
    described = {
        "path": one.get("path"),
        "version": one.get("version"),
        "name": "%s:%s" % (one.get("name"), one.get("version")) if in_wandb else one.get("name"),
        "type": one.get("type") or None,
        "qualified_name": one.get("qualified_name") if in_wandb else None,
        "metadata_dir": source if isinstance(source, str) and os.path.isdir(source) else one.get("path"),
    }
    if one.get("iteration") is not None:
        described["iteration"] = one["iteration"]
    return described


def _leaving(original, _names):
    @functools.wraps(original)
    def patch(*_args, **_kwargs):
        _say_once(original)

    return patch


def _naming(original, _names):
    signature = inspect.signature(original)

    @functools.wraps(original)
    def patch(*args, **kwargs):
        _say_once(original)
        call = signature.bind(*args, **kwargs)
        call.apply_defaults()
        script_name.hand_over(call.arguments.get("artifact_name"))

    return patch


def _recording(original, _names):
    @functools.wraps(original)
    def patch_wandb_init_for_lineage(artifact_qualified_names=(), tags=None):
        _say_once(original)
        from . import lineage

        lineage.add(artifact_qualified_names, tags)

    return patch_wandb_init_for_lineage


def _say_once(original):
    if job.once("of the kit", original.__name__):
        notice.info("%s does nothing here: nemotron-exec's own patch is active" % original.__name__)


_REPLACEMENTS = dict.fromkeys(_MEGATRON, _leaving)
_REPLACEMENTS.update(dict.fromkeys(_NEMO_RL, _naming))
_REPLACEMENTS.update(
    patch_wandb_init_for_lineage=_recording,
    register_resolvers_from_config=_from_config,
    register_resolvers=_registering,
    resolve_artifact_pre_init=_resolving,
)
