"""Step 3, resolve: one launcher of the job resolves, and all others get its answer or its error."""
