"""Each patch is one file, whose docstring says what it wraps, why, in which versions, and when it can be removed."""
