"""The meaning of a config to the launcher, and its resolved text."""
