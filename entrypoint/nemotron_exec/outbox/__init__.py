"""Checkpoints that a dead job has not sent: they are sent before the next start."""
