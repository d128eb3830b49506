"""What a framework writes past its checkpoints, complete: a model or an adapter that others load.

An export is an artifact of its own beside the training's checkpoints, which `latest` of these never means: it has the
name of its directory, or `run.publish` with `-hf` or `-adapter`. `format` says what it is; an adapter's type is
`adapter`.
"""

from __future__ import annotations

import os
import re

from .. import notice
from ..checkpoints import deliver, describe, record
from ..checkpoints.settings import settings
from ..paths.absolute import absolute

__all__ = ["ALIAS", "record_export"]

ALIAS = "export"
"""Of the newest version: by it the one before is found, whose directory now has other files."""
_ADAPTER = "adapter_config.json"
# ModelOpt's own description of what it has quantised, and the sidecar in which Megatron-Bridge keeps its scales.
_QUANTISED = ("hf_quant_config.json", "modelopt_weights.pt")


def record_export(framework, path, source=None, extra=None):
    """Record an export; never raises, unless `NEMOTRON_EXEC_STRICT=1` asks for it.

    Args:
        framework: Name of a row of frameworks.py.
        path: The directory that has been written (str or path-like).
        source: The checkpoint that it was made of, where the framework was given one.
        extra: Further metadata.
    """
    try:
        _record(framework, os.fspath(path), source, extra or {})
    except Exception as error:
        if notice.strict():
            raise
        notice.warning("the export %s is not recorded as an artifact: %r" % (path, error))


def _record(framework, path, source, extra):
    if any(part.startswith("tmp_step_") for part in re.split(r"[/\\]", path)):
        return  # a part of NeMo-RL's checkpoint, which is complete only when it is renamed
    path = path.rstrip("/")
    if not describe.is_uri(path):
        path = absolute(path)
        if not os.path.exists(path):
            return
    kind, form, suffix = _what(path)
    metadata = dict(extra, format=form)
    number = None
    if source is not None:
        source = os.fspath(source)
        metadata["exported_from"] = source if describe.is_uri(source) else absolute(source)
        number = describe.number_in(source)
    recorded = record.record(
        describe.Completed(
            framework=framework,
            versions=describe.versions_of(framework),
            # The outbox lies beside the export: an export that is uploaded as it is holds no file of nemotron-exec.
            save_dir=os.path.dirname(path),
            checkpoint_path=path,
            number=describe.number_in(path) if number is None else number,
            alias=ALIAS,
            path_is_checkpoint=True,
            transient=False,
            best=None,
            extra=metadata,
            name=_name(path, suffix),
            type=kind,
        )
    )
    if recorded is not None:
        deliver.deliver(recorded, hold=False)


def _what(path):
    """Type and format of an export, and what its name ends in under `run.publish`."""
    if os.path.isfile(os.path.join(path, _ADAPTER)):
        return "adapter", "peft", "-adapter"
    quantised = any(os.path.isfile(os.path.join(path, name)) for name in _QUANTISED)
    return "model", "hf+modelopt" if quantised else "hf", "-hf"


def _name(path, suffix):
    publish = settings().publish
    published = describe.published_name(publish) if publish else None
    return describe.artifact_name(path) if published is None else published[0] + suffix
