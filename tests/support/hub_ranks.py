"""Runs N ranks of a job that load a model by transformers, as NeMo-RL and Megatron-Bridge do.

    python hub_ranks.py cfg.yaml 64

Each rank is a fork of a process that has imported transformers, so that 64 of them fit on a small machine.
"""

import os
import sys

import yaml
from transformers import AutoConfig, AutoTokenizer


def load(config):
    found = AutoConfig.from_pretrained(config["model_name"])
    tokenizer = AutoTokenizer.from_pretrained(config["tokenizer"]["name"])
    assert tokenizer("hello world")["input_ids"] == [1, 2]
    return found.hidden_size


def main(path, ranks):
    with open(path) as file:
        config = yaml.safe_load(file)["policy"]
    children = []
    for _ in range(ranks):
        child = os.fork()
        if not child:
            try:
                os._exit(load(config))
            finally:
                os._exit(255)
        children.append(child)
    codes = {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children}
    print(f"{ranks} ranks: {codes}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
