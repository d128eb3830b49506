"""Loads the models that a config names with Megatron-Bridge's AutoBridge. It does not use nemotron-exec.

Usage: hub_megatron_bridge.py CONFIG
"""

from __future__ import annotations

import sys

import cuda_is_cpu
import yaml

cuda_is_cpu.install()

from megatron.bridge import AutoBridge  # noqa: E402


def main(path):
    with open(path) as file:
        config = yaml.safe_load(file)
    for key in ("by_id", "by_path"):
        bridge = AutoBridge.from_hf_pretrained(config[key]["hf_path"])
        provider = bridge.to_megatron_provider(load_weights=False)
        weight = bridge.hf_pretrained.state["model.embed_tokens.weight"]
        print(f"{type(provider).__name__} {provider.hidden_size} {tuple(weight.shape)} {weight.sum().item()}")


main(sys.argv[1])
