"""Megatron-Bridge's own `pretrain()` and `finetune()` with a tiny GPT on the CPU, by a config of examples/.

It does not use nemotron-exec.

Usage: train_by_config.py CONFIG. It fine-tunes if the config names a `checkpoint.pretrained_checkpoint`, and resumes.
"""

from __future__ import annotations

import argparse
import sys

import pretrain_tiny_gpt  # first: it makes Megatron-Bridge see a GPU
import yaml


def main(path):
    import megatron.core.datasets.utils

    megatron.core.datasets.utils.compile_helpers = lambda: None
    import megatron.bridge.training.initialize as initialize
    from megatron.bridge.training.gpt_step import forward_step

    if hasattr(initialize, "compile_helpers"):
        initialize.compile_helpers = lambda: None
    with open(path) as file:
        config = yaml.safe_load(file)
    checkpoint = config["checkpoint"]
    chosen = argparse.Namespace(
        iterations=config["train"]["train_iters"], every=checkpoint["save_interval"], keep=-1, wandb=False
    )
    pretrained = checkpoint.get("pretrained_checkpoint")
    configured = pretrain_tiny_gpt.configured(chosen, checkpoint["save"], pretrained=pretrained)
    configured.checkpoint.load = checkpoint["save"]
    if pretrained:
        from megatron.bridge.training.finetune import finetune as train
    else:
        from megatron.bridge.training.pretrain import pretrain as train
    train(config=configured, forward_step_func=forward_step)


if __name__ == "__main__":
    main(sys.argv[1])
