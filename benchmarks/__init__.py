"""Measures the cost of nemotron-exec against the tools that people use today: `make bench`."""
