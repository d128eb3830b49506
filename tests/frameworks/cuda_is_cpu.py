"""Lets Megatron-Bridge's `pretrain()` run on a machine without a GPU. Import it before megatron.

It changes three things, and no code for checkpoints or W&B. `torch.cuda` answers as if the CPU were its one device.
Transformer Engine is absent, but two modules that subclass it unconditionally get stand-in base classes. Megatron does
not compile its data set helpers.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import sys
import types

import torch
from torch.overrides import TorchFunctionMode

CPU = torch.device("cpu")


class Stream:
    """A stream without effect: all operations run at once."""

    cuda_stream = 0

    def __init__(self, *_, **__):
        self.device = CPU

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def __getattr__(self, name):
        return lambda *_, **__: None


class Event(Stream):
    """An event that has happened."""

    def query(self):
        return True

    def elapsed_time(self, _):
        return 0.0


class OnTheCpu(TorchFunctionMode):
    """Puts tensors for a CUDA device on the CPU."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if function is torch.Tensor.cuda:
            return args[0]
        if "device" in kwargs and _is_cuda(kwargs["device"], of_device=True):
            kwargs["device"] = CPU
        if function is torch.Tensor.to:
            args = tuple(CPU if _is_cuda(value) else value for value in args)
        return function(*args, **kwargs)


def _is_cuda(value, of_device=False):
    if isinstance(value, str):
        return value.startswith("cuda")
    if isinstance(value, torch.device):
        return value.type == "cuda"
    return of_device and isinstance(value, int) and not isinstance(value, bool)


def _answer_for_cuda():
    properties = types.SimpleNamespace(major=8, minor=0, total_memory=1 << 33, multi_processor_count=1, name="cpu")
    answers = {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda _: None,
        "device": lambda _: contextlib.nullcontext(),
        "get_device_properties": lambda *_: properties,
        "get_device_capability": lambda *_: (8, 0),
        "get_device_name": lambda *_: "cpu",
        "get_rng_state": lambda *_, **__: torch.get_rng_state(),
        "set_rng_state": lambda state, *_, **__: torch.set_rng_state(state),
        "manual_seed": lambda seed: torch.manual_seed(seed),
        "Stream": Stream,
        "Event": Event,
        "stream": lambda _: contextlib.nullcontext(),
        "current_stream": lambda *_: Stream(),
        "default_stream": lambda *_: Stream(),
        "set_stream": lambda *_: None,
        "synchronize": lambda *_: None,
        "empty_cache": lambda: None,
        "ipc_collect": lambda: None,
        "memory_stats": lambda *_: {},
    }
    for name in ("memory_allocated", "max_memory_allocated", "memory_reserved", "max_memory_reserved"):
        answers[name] = lambda *_: 0
    for name, value in answers.items():
        setattr(torch.cuda, name, value)
    torch.cuda.random.get_rng_state = answers["get_rng_state"]
    # PyTorch's optimizers ask `torch.accelerator` about streams.
    for name in ("is_available", "device_count", "current_stream", "set_stream", "synchronize", "empty_cache"):
        if hasattr(torch.accelerator, name):
            setattr(torch.accelerator, name, answers[name])
    for name in ("current_device_index", "current_device_idx"):
        if hasattr(torch.accelerator, name):
            setattr(torch.accelerator, name, answers["current_device"])
    torch._C._cuda_setRNGState = torch.set_rng_state
    torch.cuda.default_generators = (torch.default_generator,)
    torch.Tensor.pin_memory = lambda self, *_, **__: self
    torch.nn.Module.cuda = lambda self, *_, **__: self
    torch.Tensor.is_cuda = property(lambda _: True)


class _LentAttributes(type):
    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return _Lent


class _Lent(torch.nn.Linear, metaclass=_LentAttributes):
    """Stands in for every class of Transformer Engine."""


class _LentTransformerEngine(importlib.abc.MetaPathFinder):
    """Provides Transformer Engine only to the modules that subclass it without a check whether it is installed."""

    borrowers = ("megatron.bridge.peft.lora", "megatron.bridge.peft.lora_layers")

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "transformer_engine":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        if name not in self.borrowers:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        execute = spec.loader.exec_module

        def exec_module(module):
            lent = {}
            for one in ("transformer_engine", "transformer_engine.pytorch"):
                lent[one] = types.ModuleType(one)
                lent[one].__getattr__ = lambda _: _Lent
            lent["transformer_engine"].pytorch = lent["transformer_engine.pytorch"]
            sys.modules.update(lent)
            try:
                execute(module)
            finally:
                for one in lent:
                    del sys.modules[one]

        spec.loader.exec_module = exec_module
        return spec


def install():
    """Make Megatron-Bridge see a GPU in this process."""
    _answer_for_cuda()
    OnTheCpu().__enter__()
    sys.meta_path.insert(0, _LentTransformerEngine())
    # Hide the resiliency extension of PyPI: it is older than the release that Megatron-Core 0.19 would use.
    sys.modules["nvidia_resiliency_ext.checkpointing.async_ckpt.core"] = None
