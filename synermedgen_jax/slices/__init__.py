"""Data at rest: volumes on disk, phantoms, the slice store, the splits."""
