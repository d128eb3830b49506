"""SHA-256 of a few bytes, without `hashlib`: that loads OpenSSL, which takes 3 ms and pays off from a megabyte on."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hashlib import sha256
else:
    try:
        if sys.version_info >= (3, 12):
            from _sha2 import sha256
        else:
            from _sha256 import sha256
    except ImportError:  # this Python was built without the `_sha2` modules
        from hashlib import sha256

__all__ = ["sha256"]
