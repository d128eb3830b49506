"""Reads a flag in an environment variable, in the same way for the launcher and for the job."""

__all__ = ["is_on"]

_ON = ("1", "true", "yes", "on", "y", "t")
_OFF = ("", "0", "false", "no", "off", "n", "f")


def is_on(text):
    """True or False for a flag that is on or off; None for any other text. Case and blanks do not count."""
    word = (text or "").strip().lower()
    return True if word in _ON else False if word in _OFF else None
