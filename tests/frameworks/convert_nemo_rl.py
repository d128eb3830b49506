"""Runs the conversion of a Hugging Face model into Megatron's format and back, from a checkout of NeMo-RL, on the CPU.

The two functions of nemo_rl/models/megatron/community_import.py run unchanged. The packages around them are empty,
because their `__init__` import Ray and vLLM. This script does not use nemotron-exec.

Usage: convert_nemo_rl.py CHECKOUT CONFIG DIR
"""

from __future__ import annotations

import subprocess
import sys
import types

PARALLEL = {
    "tensor_model_parallel_size": 1,
    "pipeline_model_parallel_size": 1,
    "context_parallel_size": 1,
    "expert_model_parallel_size": 1,
    "expert_tensor_parallel_size": 1,
    "num_layers_in_first_pipeline_stage": None,
    "num_layers_in_last_pipeline_stage": None,
    "pipeline_dtype": "float32",
    "sequence_parallel": False,
    "gradient_accumulation_fusion": False,
}


def main(checkout, config, directory):
    """Convert each key's model in a process of its own, because a process can make Megatron's groups only once."""
    import yaml

    with open(config) as file:
        models = yaml.safe_load(file)["policy"]
    for key, model in models.items():
        subprocess.run([sys.executable, __file__, checkout, model, f"{directory}/{key}", "--one"], check=True)


def one(checkout, model, directory):
    import export_tiny_llama  # first: it makes Megatron-Bridge see a GPU
    import torch

    for name in ("nemo_rl", "nemo_rl.models", "nemo_rl.models.megatron", "nemo_rl.models.policy"):
        package = types.ModuleType(name)
        package.__path__ = [f"{checkout}/{name.replace('.', '/')}"]
        sys.modules[name] = package
    sys.modules["nemo_rl.models.policy"].MegatronConfig = dict  # needed for an annotation
    from megatron.bridge import AutoBridge
    from megatron.core import parallel_state
    from nemo_rl.models.megatron.community_import import export_model_from_megatron, import_model_from_hf_name

    # Turn off the fused kernels of Transformer Engine, which is not installed.
    original = AutoBridge.to_megatron_provider
    AutoBridge.to_megatron_provider = lambda *args, **kwargs: export_tiny_llama.plain(original(*args, **kwargs))
    torch.distributed.init_process_group("gloo", rank=0, world_size=1, store=torch.distributed.HashStore())
    import_model_from_hf_name(model, f"{directory}/megatron", PARALLEL)
    if parallel_state.model_parallel_is_initialized():
        parallel_state.destroy_model_parallel()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    export_model_from_megatron(model, f"{directory}/megatron/iter_0000000", f"{directory}/hf", model)
    import transformers

    weights = transformers.AutoModelForCausalLM.from_pretrained(f"{directory}/hf").state_dict()
    source = transformers.AutoModelForCausalLM.from_pretrained(model).state_dict()
    same = all(torch.equal(source[name].float(), weights[name].float()) for name in source)
    print(f"{model}: {len(weights)} weights, {'the same' if same else 'others'} after both conversions", flush=True)


if __name__ == "__main__":
    if sys.argv[-1] == "--one":
        one(*sys.argv[1:-1])
    else:
        main(*sys.argv[1:])
