"""The Python API, under the names that NVIDIA's document gives it."""
