"""Megatron-Bridge's own `pretrain()` and `finetune()` with a tiny GPT on the CPU, unmodified.

It does not use nemotron-exec.

Usage: pretrain_tiny_gpt.py SAVE_DIR [--async] [--wandb] [--iterations N] [--every N] [--keep K]
           [--then-async DIR] [--then-finetune DIR] [--then-keep-one DIR]

`--then-…` trains once more in the same process, because the imports take most of the time.
"""

from __future__ import annotations

import argparse
import inspect
import os

import cuda_is_cpu
import torch

os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "1")
# A single process is a group of its own. Use any free port: the default port may be in use.
if "RANK" not in os.environ:
    os.environ.setdefault("MASTER_PORT", "0")
# Here and not in main(): Megatron-Core spawns its checkpoint writers. They import this file, and need a GPU, too.
cuda_is_cpu.install()


def main(arguments):
    import megatron.core.datasets.utils

    megatron.core.datasets.utils.compile_helpers = lambda: None
    import megatron.bridge.training.initialize as initialize
    from megatron.bridge.training.gpt_step import forward_step
    from megatron.bridge.training.pretrain import pretrain

    if hasattr(initialize, "compile_helpers"):
        initialize.compile_helpers = lambda: None
    if "RANK" in os.environ:
        # Make one group for all trainings: a second group would find the addresses of the first in torchrun's store.
        torch.distributed.init_process_group("gloo")
    pretrain(
        config=configured(arguments, arguments.save_dir, asynchronous=arguments.asynchronous),
        forward_step_func=forward_step,
    )
    if arguments.then_async:
        start_again()
        pretrain(config=configured(arguments, arguments.then_async, asynchronous=True), forward_step_func=forward_step)
    if arguments.then_finetune:
        from megatron.bridge.training.finetune import finetune

        start_again()
        finetune(
            config=configured(arguments, arguments.then_finetune, pretrained=arguments.save_dir),
            forward_step_func=forward_step,
        )
    if arguments.then_keep_one:
        start_again()
        arguments.iterations, arguments.keep = 6, 1
        pretrain(config=configured(arguments, arguments.then_keep_one), forward_step_func=forward_step)


def start_again():
    """Drop the state that Megatron keeps in the process after a run."""
    from megatron.core import parallel_state
    from megatron.core.num_microbatches_calculator import destroy_num_microbatches_calculator
    from megatron.core.rerun_state_machine import destroy_rerun_state_machine

    parallel_state.destroy_model_parallel()
    destroy_num_microbatches_calculator()
    destroy_rerun_state_machine()


def configured(arguments, save_dir, asynchronous=False, pretrained=None):
    """A complete configuration of Megatron-Bridge."""
    from megatron.bridge.models.gpt_provider import GPTModelProvider, local_layer_spec
    from megatron.bridge.training.config import (
        CheckpointConfig,
        ConfigContainer,
        DistributedInitConfig,
        LoggerConfig,
        MockGPTDatasetConfig,
        OptimizerConfig,
        RerunStateMachineConfig,
        RNGConfig,
        SchedulerConfig,
        TokenizerConfig,
        TrainingConfig,
    )
    from megatron.core.distributed import DistributedDataParallelConfig

    # The default strategy, "nvrx", needs a GPU.
    chosen = {"async_strategy": "mcore"} if "async_strategy" in inspect.signature(CheckpointConfig).parameters else {}
    sequence = 16
    return ConfigContainer(
        train=TrainingConfig(
            micro_batch_size=1,
            global_batch_size=2,
            train_iters=arguments.iterations,
            eval_iters=0,
            eval_interval=1000,
            exit_signal_handler=False,
        ),
        model=GPTModelProvider(
            num_layers=1,
            hidden_size=16,
            num_attention_heads=2,
            ffn_hidden_size=32,
            seq_length=sequence,
            vocab_size=128,
            make_vocab_size_divisible_by=128,
            transformer_layer_spec=local_layer_spec,
            gradient_accumulation_fusion=False,
            masked_softmax_fusion=False,
            bias_activation_fusion=False,
            bias_dropout_fusion=False,
            apply_rope_fusion=False,
            cross_entropy_loss_fusion=False,
            persist_layer_norm=False,
            attention_dropout=0.0,
            hidden_dropout=0.0,
            use_cpu_initialization=True,
            pipeline_dtype=torch.float32,
            params_dtype=torch.float32,
        ),
        optimizer=OptimizerConfig(
            optimizer="adam", lr=1e-3, min_lr=1e-4, clip_grad=0.0, use_distributed_optimizer=False
        ),
        scheduler=SchedulerConfig(
            lr_decay_style="constant",
            lr_warmup_iters=0,
            lr_decay_iters=arguments.iterations,
            start_weight_decay=0.01,
            end_weight_decay=0.01,
            weight_decay_incr_style="constant",
        ),
        ddp=DistributedDataParallelConfig(use_distributed_optimizer=False, overlap_grad_reduce=False),
        dataset=MockGPTDatasetConfig(
            random_seed=1,
            reset_attention_mask=False,
            reset_position_ids=False,
            eod_mask_loss=False,
            seq_length=sequence,
            num_dataset_builder_threads=1,
            data_sharding=True,
            dataloader_type="single",
            num_workers=0,
        ),
        logger=LoggerConfig(
            log_interval=1,
            wandb_project="nemotron" if arguments.wandb else None,
            wandb_entity="team" if arguments.wandb else None,
            wandb_exp_name="tiny" if arguments.wandb else None,
            wandb_save_dir=os.environ.get("WANDB_DIR"),
        ),
        tokenizer=TokenizerConfig(tokenizer_type="NullTokenizer", vocab_size=127),
        checkpoint=CheckpointConfig(
            save=save_dir,
            pretrained_checkpoint=pretrained,
            save_interval=arguments.every,
            ckpt_format="torch_dist",
            async_save=asynchronous,
            use_persistent_ckpt_worker=asynchronous,
            fully_parallel_save=False,
            most_recent_k=arguments.keep,
            **chosen,
        ),
        dist=DistributedInitConfig(distributed_backend="gloo"),
        rng=RNGConfig(seed=1),
        rerun_state_machine=RerunStateMachineConfig(rerun_mode="disabled"),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("save_dir")
    parser.add_argument("--async", dest="asynchronous", action="store_true")
    parser.add_argument("--wandb", action="store_true")
    parser.add_argument("--iterations", type=int, default=4)
    parser.add_argument("--every", type=int, default=2)
    parser.add_argument("--keep", type=int, default=-1)
    parser.add_argument("--then-async")
    parser.add_argument("--then-finetune")
    parser.add_argument("--then-keep-one")
    main(parser.parse_args())
