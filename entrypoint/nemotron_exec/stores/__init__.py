"""Stores of artifacts turn a reference into a pinned version with a path."""
