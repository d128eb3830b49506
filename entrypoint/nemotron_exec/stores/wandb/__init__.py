"""W&B as a store; a child process asks it."""
