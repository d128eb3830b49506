"""Run an unchanged embedding or reranking recipe of NVIDIA's Nemotron on a machine without a GPU.

Usage: retrieval_job.py [--record FILE] SCRIPT [ARGUMENT ...]
       retrieval_job.py --base DIRECTORY --data DIRECTORY

The script gets an optimizer of PyTorch in place of FlashOptim's, whose kernels need a GPU, and gloo and DDP in place of
NCCL and FSDP. The script, NeMo Automodel, its recipe and its checkpoints are real. The second form writes a tiny model
with a tokenizer, and a training set of eight questions. This program does not use nemotron-exec.
"""

from __future__ import annotations

import argparse
import json
import runpy
import sys
import types
from pathlib import Path

import torch
import train_automodel

WORDS = ["<pad>", "<s>", "</s>", "<unk>", *"abcdefghijklmnopqrstuvwxyz", *"0123456789", ":"]


class FlashAdamW(torch.optim.AdamW):
    """AdamW, without the parameters that only FlashOptim has."""

    def __init__(self, params, lr=1e-3, weight_decay=0.01, betas=(0.9, 0.999), eps=1e-8, **_):
        super().__init__(params, lr=lr, weight_decay=weight_decay, betas=tuple(betas), eps=eps)


def make_base(directory):
    """Write a Llama with few weights, for both kinds of encoder."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({word: at for at, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=128,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        num_labels=1,
    )
    LlamaForSequenceClassification(config).save_pretrained(directory)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(directory)


def make_data(directory):
    """Write eight questions with a right and four wrong passages, in the form of the recipes' data preparation."""
    from datasets import Dataset

    corpus = directory / "corpus"
    corpus.mkdir(parents=True)
    Dataset.from_dict({"id": list("abcdefgh"), "text": [f"{one} {one}" for one in "abcdefgh"]}).to_parquet(
        corpus / "train.parquet"
    )
    (corpus / "merlin_metadata.json").write_text(json.dumps({"class": "TextQADataset", "corpus_id": "letters"}))
    questions = [
        {
            "question_id": str(at),
            "question": one,
            "corpus_id": "letters",
            "pos_doc": [{"id": one}],
            "neg_doc": [{"id": other} for other in "abcdefgh" if other != one][:4],
        }
        for at, one in enumerate("abcdefgh")
    ]
    (directory / "train.json").write_text(json.dumps({"corpus": [{"path": "corpus"}], "data": questions}))


def main(arguments):
    """Make the replacements, and run the script."""
    train_automodel.on_the_cpu()
    sys.modules["flashoptim"] = types.ModuleType("flashoptim")
    sys.modules["flashoptim"].FlashAdamW = FlashAdamW
    from nemo_automodel.recipes import retrieval

    for recipe in (retrieval.TrainBiEncoderRecipe, retrieval.TrainCrossEncoderRecipe):
        recipe.__init__ = _on_the_cpu(recipe.__init__, arguments.record)
    sys.argv = [arguments.script, *arguments.arguments]
    runpy.run_path(arguments.script, run_name="__main__")


def _on_the_cpu(original, record):
    def init(self, cfg):
        if record:
            values = {
                "data": list(cfg.dataloader.dataset.data_dir_list),
                "model": cfg.model.pretrained_model_name_or_path,
                "checkpoint_dir": cfg.checkpoint.checkpoint_dir,
            }
            Path(record).write_text(json.dumps(values))
        cfg.dist_env.backend = "gloo"
        cfg.distributed = type(cfg)({"strategy": "ddp"})
        original(self, cfg)

    return init


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--record")
    parser.add_argument("--base", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("script", nargs="?")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    if given.script:
        main(given)
    else:
        make_base(given.base)
        make_data(given.data)
