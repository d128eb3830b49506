"""Evaluate a checkpoint of pretrain.py or sft.py: `evaluate.py CHECKPOINT TEXT OUT`. It does not use nemotron-exec."""

import json
import os
import sys

import tiny
import torch


def main(checkpoint: str, text: str, out: str) -> None:
    with open(text, "rb") as file:
        tokens = torch.tensor(list(file.read(32 * 128 + 1)), dtype=torch.long)
    state = torch.load(os.path.join(checkpoint, "model.pt"), weights_only=True)
    model = tiny.TinyLM(state["embed.weight"].shape[1])
    model.load_state_dict(state)
    with torch.no_grad():
        logits = model(tokens[:-1].reshape(32, 128))
    loss = torch.nn.functional.cross_entropy(logits.reshape(-1, tiny.VOCABULARY), tokens[1:])
    os.makedirs(out, exist_ok=True)
    with open(os.path.join(out, "result.json"), "w") as file:
        json.dump({"loss": round(loss.item(), 3)}, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
