"""Objectives, optimiser, checkpoints, and the one train loop."""
