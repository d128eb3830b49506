"""ModelOpt: a quantised, pruned or speculative model that it exports becomes an artifact.

Wraps the functions that write an export. For models of transformers that is `export_hf_checkpoint` of
`modelopt.torch.export.unified_export_hf`: rank 0 records, because it may be the only rank that calls it. For models of
Megatron-Core they are `GPTModelExporter.save_pretrained` and `save_pretrained_extra_modules` of
`modelopt.torch.export.unified_export_megatron`, which `export_mcore_gpt_to_hf` calls. All ranks return from them when
the files are complete, and the last rank records.

Why: no framework logs these exports, although the served model is one of them.

Known: 0.47. Stands down where the module has none of the functions. Can go when ModelOpt registers its exports itself.
"""

from __future__ import annotations

import functools
import inspect
import sys

from .. import notice
from ..status import INSTALLED, STOOD_DOWN, Status
from . import exported, other_hands
from .saved_callback import is_last_rank

NAME = "modelopt"
OF_TRANSFORMERS: tuple[str, ...] = ("export_hf_checkpoint",)
OF_MEGATRON: tuple[str, ...] = ("save_pretrained", "save_pretrained_extra_modules")


def apply(module):
    """Wrap the functions in `module`, and the classes' methods. Idempotent.

    Returns:
        A `Status`.
    """
    exporter = getattr(module, "GPTModelExporter", None)
    if inspect.isclass(exporter):
        owner, names, parameter, writes = exporter, OF_MEGATRON, "save_directory", is_last_rank
    else:
        owner, names, parameter, writes = module, OF_TRANSFORMERS, "export_dir", _is_rank_0
    wrapped = [name for name in names if _replace(owner, name, parameter, writes)]
    if not wrapped:
        return Status(NAME, STOOD_DOWN, "%s has no %s(…, %s)" % (module.__name__, names[0], parameter))
    return Status(NAME, INSTALLED, "")


def _replace(owner, name, parameter, writes):
    original = vars(owner).get(name)
    if not inspect.isfunction(original):
        return False
    if other_hands.is_wrapper(original):
        return True
    signature = inspect.signature(original)
    if parameter not in signature.parameters:
        return False

    @functools.wraps(original)
    def export(*args, **kwargs):
        result = original(*args, **kwargs)
        if writes():
            try:
                given = signature.bind(*args, **kwargs)
                given.apply_defaults()
                path = given.arguments[parameter]
            except Exception as error:
                notice.warning("an export of ModelOpt is not recorded as an artifact: %r" % (error,))
                return result
            exported.record_export(NAME, path)
        return result

    other_hands.mark(export, original)
    setattr(owner, name, export)
    return True


def _is_rank_0():
    distributed = sys.modules.get("torch.distributed")
    return distributed is None or not distributed.is_initialized() or distributed.get_rank() == 0
