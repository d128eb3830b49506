"""A short double of `nemo_runspec.config.resolvers` of NVIDIA's Nemotron: it prints a line for every look-up."""

from __future__ import annotations

from omegaconf import OmegaConf

_ARTIFACT_REGISTRY = {}
_ARTIFACT_CACHE = {}


def _art_resolver(name, field="path"):
    if name not in _ARTIFACT_REGISTRY:
        raise KeyError(f"Artifact '{name}' not found")
    return _ARTIFACT_REGISTRY[name][field]


def resolve_artifact_pre_init(artifact_ref, *, entity=None, project=None, patch_http_digest=False):
    print("asked W&B for", artifact_ref)
    return {"path": "/moved", "version": "v9", "qualified_name": f"team/nemotron/{artifact_ref.split(':')[0]}:v9"}


def _resolve_artifact_local(artifact_ref):
    raise RuntimeError("Artifact registry not initialized. Call kit.init() first.")


def register_resolvers(artifacts=None, *, replace=True, mode="active_run", pre_init_patch_http_digest=False):
    names = []
    for key, artifact_ref in (artifacts or {}).items():
        if mode == "local":
            found = _resolve_artifact_local(artifact_ref)
        else:
            found = resolve_artifact_pre_init(artifact_ref, patch_http_digest=pre_init_patch_http_digest)
        _ARTIFACT_REGISTRY[key] = found
        names.append(found["qualified_name"])
    OmegaConf.register_new_resolver("art", lambda name, field="path": _art_resolver(name, field), replace=replace)
    return names


def _is_artifact_reference(value):
    return isinstance(value, str) and "/" not in value and ":" in value


def register_resolvers_from_config(
    config, artifacts_key="run", *, replace=True, mode=None, pre_init_patch_http_digest=False
):
    section = OmegaConf.to_container(config[artifacts_key], resolve=False)
    artifacts = {key: value for key, value in section.items() if _is_artifact_reference(value)}
    return register_resolvers(artifacts, replace=replace, mode=mode or "pre_init")


def clear_artifact_cache():
    _ARTIFACT_REGISTRY.clear()
    _ARTIFACT_CACHE.clear()
