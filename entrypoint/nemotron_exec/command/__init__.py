"""Step 1, read: find launcher, program, configs and overrides in the wrapped command."""
