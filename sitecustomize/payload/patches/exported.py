"""Records exports: complete models or adapters that a framework writes beside its checkpoints, for other programs.

An export is an artifact with a name of its own, so `latest` of the checkpoints never means an export. The name is that
of its directory, or `run.publish` with `-hf` or `-adapter`. `format` names the export's format; an adapter's type is
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
"""Alias of the newest version. By it the previous version is found, whose directory now has other files."""
_ADAPTER = "adapter_config.json"
# ModelOpt writes the first file, a description of the quantised layers. Megatron-Bridge keeps the scales in the second.
_QUANTISED = ("hf_quant_config.json", "modelopt_weights.pt")


def record_export(framework, path, source=None, extra=None):
    """Record an export. Never raises, except under `NEMOTRON_EXEC_STRICT=1`.

    Args:
        framework: Name of a row of frameworks.py.
        path: The directory of the export (str or path-like).
        source: The checkpoint from which the export was made, if the framework was given one.
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
        return  # a part of NeMo-RL's checkpoint, which is complete only after its rename
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
            # The outbox lies beside the export, so that the export can be uploaded without files of nemotron-exec.
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
    """Type and format of an export, and the end of its name under `run.publish`."""
    if os.path.isfile(os.path.join(path, _ADAPTER)):
        return "adapter", "peft", "-adapter"
    quantised = any(os.path.isfile(os.path.join(path, name)) for name in _QUANTISED)
    return "model", "hf+modelopt" if quantised else "hf", "-hf"


def _name(path, suffix):
    publish = settings().publish
    published = describe.published_name(publish) if publish else None
    return describe.artifact_name(path) if published is None else published[0] + suffix
