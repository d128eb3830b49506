"""A model of a few hundred bytes that transformers' real AutoConfig and AutoTokenizer load."""

from __future__ import annotations

import json
import math
import struct

__all__ = ["FILES", "REMOTE_CODE", "safetensors"]

_CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 3,
}
_TOKENIZER = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [
        {"id": 0, "content": "<unk>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": True}
    ],
    "normalizer": None,
    "pre_tokenizer": {"type": "Whitespace"},
    "post_processor": None,
    "decoder": None,
    "model": {"type": "WordLevel", "vocab": {"<unk>": 0, "hello": 1, "world": 2}, "unk_token": "<unk>"},
}  # fmt: skip

FILES = {
    "README.md": b"---\nlicense: mit\n---\n# Tiny\n",
    "config.json": json.dumps(_CONFIG).encode(),
    "tokenizer.json": json.dumps(_TOKENIZER).encode(),
    "tokenizer_config.json": json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>"}).encode(),
    "model.safetensors": bytes(3000),
}

REMOTE_CODE = {
    **FILES,
    "config.json": json.dumps(
        {**_CONFIG, "model_type": "tiny-remote", "auto_map": {"AutoConfig": "configuration_tiny.TinyConfig"}}
    ).encode(),
    "configuration_tiny.py": b"from transformers import PretrainedConfig\n\nfrom .more import SIZE\n\n\n"
    b"class TinyConfig(PretrainedConfig):\n    model_type = 'tiny-remote'\n    size = SIZE\n",
    "more.py": b"SIZE = 7\n",
}
"""The same with Python modules of its own, for `trust_remote_code`."""


def safetensors(name: str, *shape: int) -> bytes:
    """A file of one tensor whose numbers are all 0.5 (huggingface.co/docs/safetensors, "Format")."""
    numbers = math.prod(shape)
    header = json.dumps({name: {"dtype": "F32", "shape": shape, "data_offsets": [0, 4 * numbers]}}).encode()
    return struct.pack("<Q", len(header)) + header + struct.pack(f"<{numbers}f", *[0.5] * numbers)
