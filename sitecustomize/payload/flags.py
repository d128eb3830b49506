"""What a flag in an environment variable says: one reading for the launcher and for the job."""

__all__ = ["is_on"]

_ON = ("1", "true", "yes", "on", "y", "t")
_OFF = ("", "0", "false", "no", "off", "n", "f")


def is_on(text):
    """Whether a flag is on: True or False; None for a text that is neither. Case and blanks do not count."""
    word = (text or "").strip().lower()
    return True if word in _ON else False if word in _OFF else None
