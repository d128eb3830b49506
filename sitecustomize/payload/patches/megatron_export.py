"""Megatron-Bridge's saves beside its checkpoint callback: exports become artifacts; other managers get a warning.

* `AutoBridge.save_hf_pretrained` and `save_hf_adapter`, through which `export_ckpt`, `export_adapter_ckpt` and the
  export of merged LoRA weights go. All ranks call them and return when the files are complete. The last rank records
  the export, as for checkpoints.
* `create_checkpoint_manager`: a `custom_manager_class` may save in its own way. If it calls `save_checkpoint`, the
  patch megatron-bridge records the checkpoint. If it calls neither that nor `record_checkpoint`, one warning says so.

Known: 0.2 to 0.6.2. A function that a version lacks is left alone.

Can go when Megatron-Bridge calls its callback for exports, too.
"""

from __future__ import annotations

import functools
import inspect
import sys
import threading

from .. import job, notice
from ..status import INSTALLED, STOOD_DOWN, Status
from . import exported, other_hands
from .saved_callback import is_last_rank

__all__ = ["EXPORTS", "MANAGERS", "apply"]

EXPORTS = "megatron.bridge.models.conversion.auto_bridge"
MANAGERS = "megatron.bridge.training.checkpointing"

_source = threading.local()  # the checkpoint that is being exported on this thread
_saves = {"seen": 0}


def apply(name, module):
    """Wrap those of the functions above that the module has. Idempotent.

    Args:
        name: Name of the patch that waits for the module.
        module: One of EXPORTS and MANAGERS.

    Returns:
        A `Status`.
    """
    if module.__name__ == MANAGERS:
        _replace(module, "save_checkpoint", _counting)
        _replace(module, "create_checkpoint_manager", functools.partial(_creating, module))
        return Status(name, INSTALLED, "")
    owner = getattr(module, "AutoBridge", None)
    if not inspect.isclass(owner):
        return Status(name, STOOD_DOWN, "%s has no AutoBridge" % module.__name__)
    for method in ("save_hf_pretrained", "save_hf_adapter"):
        _replace(owner, method, functools.partial(_exporting, name))
    _replace(owner, "export_ckpt", functools.partial(_from, "megatron_path"))
    _replace(owner, "export_adapter_ckpt", functools.partial(_from, "peft_checkpoint"))
    return Status(name, INSTALLED, "")


def _replace(owner, name, wrap):
    original = vars(owner).get(name)
    if inspect.isfunction(original) and not other_hands.is_wrapper(original):
        wrapper = functools.wraps(original)(wrap(original))
        other_hands.mark(wrapper, original)
        setattr(owner, name, wrapper)


def _exporting(name, original):
    signature = inspect.signature(original)

    def save(*args, **kwargs):
        part = sys._getframe(1).f_globals.get("__name__") == MANAGERS  # part of a checkpoint, whose metadata names it
        result = original(*args, **kwargs)
        if not part and is_last_rank():
            try:
                given = signature.bind(*args, **kwargs)
                given.apply_defaults()
                path, extra = given.arguments["path"], _merged(given.arguments)
            except Exception as error:
                notice.warning("an export of AutoBridge is not recorded as an artifact: %r" % (error,))
                return result
            exported.record_export(name, path, getattr(_source, "path", None), extra)
        return result

    return save


def _from(parameter, original):
    signature = inspect.signature(original)

    def export(*args, **kwargs):
        try:
            _source.path = signature.bind(*args, **kwargs).arguments.get(parameter)
        except TypeError:
            _source.path = None  # the function raises its own error for the wrong arguments
        try:
            return original(*args, **kwargs)
        finally:
            _source.path = None

    return export


def _merged(arguments):
    """Metadata that says whether an adapter has been merged into the weights."""
    if not arguments.get("merge_adapter_weights"):
        return {}
    wrapper = getattr(sys.modules.get("megatron.bridge.peft.adapter_wrapper"), "AdapterWrapper", None)
    models = arguments["model"] if isinstance(arguments["model"], (list, tuple)) else [arguments["model"]]
    if wrapper is None or not any(isinstance(one, wrapper) for model in models for one in model.modules()):
        return {}
    return {"merged_adapter": True}


def _counting(original):
    def save_checkpoint(*args, **kwargs):
        _saves["seen"] += 1
        return original(*args, **kwargs)

    return save_checkpoint


def _creating(module, original):
    def create_checkpoint_manager(*args, **kwargs):
        manager = original(*args, **kwargs)
        try:
            if type(manager) is not getattr(module, "DefaultCheckpointManager", None):
                _watch(manager)
        except Exception as error:
            notice.debug("whether %r saves checkpoints of its own is unknown: %r" % (manager, error))
        return manager

    return create_checkpoint_manager


def _watch(manager):
    save = manager.save

    @functools.wraps(save)
    def watched(*args, **kwargs):
        before = _saves["seen"], _by_hand()
        result = save(*args, **kwargs)
        if (_saves["seen"], _by_hand()) == before:
            _say(type(manager))
        return result

    manager.save = watched


def _by_hand():
    """The number of checkpoints that the script itself has recorded in this process."""
    api = sys.modules.get(__package__.rpartition(".")[0] + ".api.checkpoint")
    return api.calls() if api is not None else 0


def _say(kind):
    if not job.once("manager that saves in its own way", kind):
        return
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_initialized() or distributed.get_rank() == 0:
        notice.warning(
            "checkpoints of the custom_manager_class %s.%s are not recorded: it does not call Megatron-Bridge's "
            "save_checkpoint. Call record_checkpoint in its save()" % (kind.__module__, kind.__qualname__)
        )
