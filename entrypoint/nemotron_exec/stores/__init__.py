"""Stores of artifacts: where a reference becomes a pinned version with a path."""
