"""Names of NVIDIA's kit, where the kit itself is not installed."""
