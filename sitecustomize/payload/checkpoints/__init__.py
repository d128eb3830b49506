"""A completed checkpoint: described, recorded, delivered."""
