"""A double: see tests/doubles/README.md."""
