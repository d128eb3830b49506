"""The Hugging Face hub as a store: a revision becomes a commit, and its files lie in the standard cache."""
