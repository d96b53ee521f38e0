"""Data at rest: volumes on disk, the slice store, the splits."""
