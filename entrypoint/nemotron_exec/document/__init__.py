"""One YAML file: its text, its tree, and edits of the text."""
