"""Fine-tune pretrain.py's model: `torchrun --nproc-per-node 2 sft.py sft.yaml`. It does not use nemotron-exec."""

import sys

import tiny
import torch.distributed as dist
import yaml


def main(config_path: str) -> None:
    with open(config_path) as file:
        config = yaml.safe_load(file)
    tiny.start(seed=config["train"]["seed"])
    tiny.say(f"reading {config_path}")
    model = tiny.TinyLM(config["model"]["hidden_size"])
    checkpoint = config["checkpoint"]
    tiny.load_checkpoint(model, checkpoint["pretrained_checkpoint"])
    tiny.train(
        model,
        tiny.read_tokens(config["dataset"]["path"] + "/blend.json"),
        seq_length=config["dataset"]["seq_length"],
        steps=config["train"]["train_iters"],
        save=checkpoint["save"],
        every=checkpoint["save_interval"],
    )
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
