"""Pretrain a tiny model: `torchrun --nproc-per-node 2 pretrain.py pretrain.yaml`. It does not use nemotron-exec."""

import sys

import tiny
import torch.distributed as dist
import yaml


def main(config_path: str) -> None:
    with open(config_path) as file:
        config = yaml.safe_load(file)
    tiny.start(seed=config["train"]["seed"])
    tiny.say(f"reading {config_path}")
    tokens = tiny.read_tokens(config["recipe"]["per_split_data_args_path"])
    tiny.train(
        tiny.TinyLM(config["model"]["hidden_size"]),
        tokens,
        seq_length=config["recipe"]["seq_length"],
        steps=config["train"]["train_iters"],
        save=config["checkpoint"]["save"],
        every=config["checkpoint"]["save_interval"],
    )
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
