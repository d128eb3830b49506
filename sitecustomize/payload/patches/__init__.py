"""One file a patch: what it wraps, which versions it knows, why it exists, when it can go."""
