"""What a config means to the launcher, and its resolved text."""
