"""Megatron-LM's own `pretrain()`, of the megatron-core wheel, with a tiny GPT on the CPU.

It does not use nemotron-exec.

Usage: pretrain_megatron_lm.py [OPTIONS OF MEGATRON-LM]. They follow the options of a tiny model on a CPU.
"""

from __future__ import annotations

import os
import sys

import cuda_is_cpu

os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "1")
cuda_is_cpu.install()

# fmt: off
TINY = [
    "--num-layers", "1", "--hidden-size", "16", "--num-attention-heads", "2", "--seq-length", "16",
    "--max-position-embeddings", "16", "--micro-batch-size", "1", "--global-batch-size", "2", "--train-iters", "4",
    "--eval-iters", "0", "--eval-interval", "1000", "--lr", "0.001", "--lr-decay-style", "constant", "--mock-data",
    "--tokenizer-type", "NullTokenizer", "--vocab-size", "127", "--make-vocab-size-divisible-by", "128",
    "--transformer-impl", "local", "--distributed-backend", "gloo", "--use-cpu-initialization",
    "--no-gradient-accumulation-fusion", "--no-masked-softmax-fusion", "--no-bias-gelu-fusion",
    "--no-bias-dropout-fusion", "--no-rope-fusion", "--no-persist-layer-norm", "--attention-dropout", "0",
    "--hidden-dropout", "0", "--clip-grad", "0", "--num-workers", "0", "--log-interval", "1", "--save-interval", "2",
    "--no-save-rng", "--async-strategy", "mcore", "--rerun-mode", "disabled",
]
# fmt: on


def main():
    import megatron.core.datasets.utils

    megatron.core.datasets.utils.compile_helpers = lambda: None
    import megatron.training.initialize
    from megatron.core.enums import ModelType
    from megatron.training import pretrain
    from megatron.training.argument_utils import gpt_config_from_args, pretrain_cfg_container_from_args
    from megatron.training.arguments import parse_and_validate_args

    sys.argv[1:] = [*TINY, *sys.argv[1:]]
    arguments = parse_and_validate_args()
    datasets.is_distributed = True
    pretrain(
        pretrain_cfg_container_from_args(arguments, gpt_config_from_args(arguments)),
        datasets,
        ModelType.encoder_or_decoder,
        forward_step,
    )
    if os.environ.get("LOCAL_CHECKPOINT"):
        complete_local(arguments, os.environ["LOCAL_CHECKPOINT"])


def complete_local(arguments, directory):
    """Make the last call of save_checkpoint for `--non-persistent-ckpt-type local`, whose manager needs a GPU."""
    import torch
    from megatron.training import global_vars, wandb_utils

    global_vars._GLOBAL_WANDB_WRITER = None  # the writer's run has ended with pretrain()
    arguments.non_persistent_ckpt_type = "local"
    path = os.path.join(directory, "iter_0000006")
    tracker = os.path.join(directory, "latest_checkpointed_iteration.txt")
    os.makedirs(path, exist_ok=True)
    with open(tracker, "w") as file:
        file.write("6")
    if torch.distributed.get_rank() == torch.distributed.get_world_size() - 1:
        wandb_utils.on_save_checkpoint_success(path, tracker, directory, 6)


def datasets(samples, vp_stage=None):
    """Megatron-Core's mock data."""
    from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
    from megatron.core.datasets.gpt_dataset import GPTDatasetConfig, MockGPTDataset
    from megatron.core.tokenizers.utils.build_tokenizer import build_tokenizer
    from megatron.training import get_args

    arguments = get_args()
    config = GPTDatasetConfig(
        random_seed=1,
        sequence_length=arguments.seq_length,
        split="90,5,5",
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
        tokenizer=build_tokenizer(arguments),
    )
    return BlendedMegatronDatasetBuilder(MockGPTDataset, samples, lambda: True, config).build()


def forward_step(batches, model):
    """One batch through the model."""
    batch = next(batches)
    output = model(batch["tokens"], batch["position_ids"], batch["attention_mask"], labels=batch["labels"])
    return output, lambda losses: average(losses, batch["loss_mask"])


def average(losses, mask):
    """The sum of the losses, the number of tokens, and the same for the log."""
    import torch

    tokens = mask.sum().to(torch.int)
    loss = (losses.view(-1).float() * mask.view(-1).float()).sum()
    return loss, tokens, {"lm loss": torch.cat([loss.detach().view(1), tokens.float().view(1)])}


if __name__ == "__main__":
    main()
