"""Exports a tiny Llama with Megatron-Bridge on the CPU. It does not use nemotron-exec.

Usage: export_tiny_llama.py DIR
"""

from __future__ import annotations

import argparse
import sys

import pretrain_tiny_gpt  # first: it makes Megatron-Bridge see a GPU
import torch


def make(source):
    """Write a Llama of a few kilobytes in Hugging Face's format."""
    import tokenizers
    import transformers

    config = transformers.LlamaConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        vocab_size=128,
        max_position_embeddings=64,
        tie_word_embeddings=False,
    )
    model = transformers.LlamaForCausalLM(config)
    model.save_pretrained(source)
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>").save_pretrained(source)
    return model


def provider_of(bridge):
    """The provider of the source's model, without Transformer Engine."""
    return plain(bridge.to_megatron_provider(load_weights=True))


def plain(provider):
    """A provider without Transformer Engine, and on the CPU."""
    from megatron.bridge.models.gpt_provider import local_layer_spec

    for name, value in {
        "transformer_layer_spec": local_layer_spec,
        "seq_length": 16,
        "gradient_accumulation_fusion": False,
        "masked_softmax_fusion": False,
        "bias_activation_fusion": False,
        "bias_dropout_fusion": False,
        "apply_rope_fusion": False,
        "cross_entropy_loss_fusion": False,
        "persist_layer_norm": False,
        "use_cpu_initialization": True,
        "pipeline_dtype": torch.float32,
        "params_dtype": torch.float32,
        "bf16": False,
        "fp16": False,
        "make_vocab_size_divisible_by": 128,
    }.items():
        setattr(provider, name, value)
    return provider


def train(bridge, directory, **checkpoint):
    """Train two iterations, with one save."""
    import megatron.bridge.training.initialize as initialize
    from megatron.bridge.training.gpt_step import forward_step
    from megatron.bridge.training.pretrain import pretrain

    if hasattr(initialize, "compile_helpers"):
        initialize.compile_helpers = lambda: None
    chosen = argparse.Namespace(iterations=2, every=2, keep=-1, wandb=False)
    asynchronous = checkpoint.pop("async_save", False)
    config = pretrain_tiny_gpt.configured(chosen, directory, asynchronous=asynchronous)
    config.model = provider_of(bridge)
    for name, value in checkpoint.items():
        setattr(config.checkpoint, name, value)
    pretrain(config=config, forward_step_func=forward_step)
    pretrain_tiny_gpt.start_again()


def built(bridge):
    """The source's model in Megatron-Core."""
    provider = provider_of(bridge)
    provider.finalize()
    return provider.provide_distributed_model(
        wrap_with_ddp=False, use_cpu_initialization=True, init_model_with_meta_device=False
    )


def adapted(model):
    """The model with LoRA, and the LoRA."""
    import megatron.bridge.peft.utils
    from megatron.bridge.peft.lora import LoRA

    megatron.bridge.peft.utils.HAVE_TE = False
    lora = LoRA(dim=2, alpha=2)
    return lora(model, training=False), lora


def quantised(model, *batch):
    """The model with ModelOpt's scales for FP8, in place."""
    import modelopt.torch.quantization

    modelopt.torch.quantization.quantize(model, modelopt.torch.quantization.FP8_DEFAULT_CFG, lambda one: one(*batch))
    return model


def export(bridge, hf, source, out):
    """Make all exports that need no training."""
    import modelopt.torch.export
    from megatron.core import parallel_state
    from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed

    parallel_state.initialize_model_parallel()
    model_parallel_cuda_manual_seed(1)
    bridge.save_hf_pretrained(built(bridge), f"{out}/exports/saved")
    model, lora = adapted(built(bridge))
    bridge.save_hf_pretrained(model, f"{out}/exports/merged")
    bridge.save_hf_adapter(model, f"{out}/exports/adapter", peft_config=lora, base_model_name_or_path=source)
    tokens = torch.zeros(1, 16, dtype=torch.long)
    mask = torch.ones(1, 1, 16, 16, dtype=torch.bool).triu(1)
    (model,) = built(bridge)
    quantised(model, tokens, torch.arange(16)[None], mask)
    bridge.save_megatron_model([model], f"{out}/converted")
    modelopt.torch.export.export_mcore_gpt_to_hf(
        model, source, dtype=torch.float32, export_dir=f"{out}/exports/of-megatron"
    )
    modelopt.torch.export.export_hf_checkpoint(
        quantised(hf, tokens), dtype=torch.float32, export_dir=f"{out}/exports/of-transformers"
    )
    pretrain_tiny_gpt.start_again()


def main(out):
    import megatron.core.datasets.utils

    megatron.core.datasets.utils.compile_helpers = lambda: None
    from megatron.bridge import AutoBridge
    from megatron.bridge.utils.instantiate_utils import register_allowed_target_prefix

    source = f"{out}/source"
    hf = make(source)
    bridge = AutoBridge.from_hf_pretrained(source)
    register_allowed_target_prefix("custom_manager")
    torch.distributed.init_process_group("gloo", rank=0, world_size=1, store=torch.distributed.HashStore())
    train(bridge, f"{out}/trained", async_save=True, also_save_hf_checkpoint=True, hf_source_path=source)
    train(bridge, f"{out}/passed-on", custom_manager_class="custom_manager.PassedOn")
    train(bridge, f"{out}/alone", custom_manager_class="custom_manager.Alone")
    export(bridge, hf, source, out)
    torch.distributed.destroy_process_group()
    bridge.export_ckpt(f"{out}/trained/iter_0000002", f"{out}/exports/exported")


if __name__ == "__main__":
    main(sys.argv[1])
