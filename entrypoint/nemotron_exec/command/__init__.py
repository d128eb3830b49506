"""Step 1, read: what the wrapped command says."""
