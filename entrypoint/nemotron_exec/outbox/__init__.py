"""Checkpoints that a dead job has not sent are sent before the next start."""
