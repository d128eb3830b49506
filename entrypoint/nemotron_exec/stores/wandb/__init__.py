"""W&B as a store, asked in a child process."""
