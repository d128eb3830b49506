"""OmegaConf's interpolation language, as a tree."""
