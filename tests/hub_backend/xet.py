"""The part of Xet storage that hf_xet 1.8 needs for downloads: one block (xorb) a file, in uncompressed chunks.

The protocol is public (huggingface.co/docs/xet, "Download Protocol" and "Xorb Format"). The client does not check the
hashes, so a file's hash here is its SHA-256.
"""

from __future__ import annotations

import hashlib
from typing import Any

__all__ = ["reconstruction", "xet_hash", "xorb"]

_CHUNK = 1 << 16


def xet_hash(content: bytes) -> str:
    """The name of a file, and of its only block."""
    return hashlib.sha256(content).hexdigest()


def xorb(content: bytes) -> bytes:
    """The block of a file: for each chunk a header of 8 bytes (version, size, no compression, size), then its bytes."""
    block = bytearray()
    for start in range(0, len(content), _CHUNK):
        chunk = content[start : start + _CHUNK]
        size = len(chunk).to_bytes(3, "little")
        block += b"\0" + size + b"\0" + size + chunk
    return bytes(block)


def reconstruction(content: bytes, url: str) -> dict[str, Any]:
    """Answer of `/v1/reconstructions/{hash}`: all chunks of the one block, at `url`."""
    name = xet_hash(content)
    chunks = {"start": 0, "end": -(-len(content) // _CHUNK)}
    return {
        "offset_into_first_range": 0,
        "terms": [{"hash": name, "unpacked_length": len(content), "range": chunks}],
        "fetch_info": {name: [{"range": chunks, "url": url, "url_range": {"start": 0, "end": len(xorb(content)) - 1}}]},
    }
