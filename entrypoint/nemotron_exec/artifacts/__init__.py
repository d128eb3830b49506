"""The nouns: a reference to an artifact, and the version that it stands for."""
