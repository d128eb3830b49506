"""A tiny Llama, trained for two iterations by Megatron-Bridge on the CPU. It does not use nemotron-exec.

Usage: train_tiny_llama.py DIR [CONFIG]
"""

from __future__ import annotations

import sys

import export_tiny_llama  # first: it makes Megatron-Bridge see a GPU
import torch


def main(out):
    import megatron.core.datasets.utils

    megatron.core.datasets.utils.compile_helpers = lambda: None
    from megatron.bridge import AutoBridge

    export_tiny_llama.make(f"{out}/source")
    bridge = AutoBridge.from_hf_pretrained(f"{out}/source")
    torch.distributed.init_process_group("gloo", rank=0, world_size=1, store=torch.distributed.HashStore())
    export_tiny_llama.train(bridge, f"{out}/trained")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
