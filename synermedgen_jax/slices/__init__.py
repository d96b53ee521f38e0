"""Data on disk: volumes, the slice store and the splits."""
