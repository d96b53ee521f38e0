"""Shared by all rooms: the medical vocabulary, the batch contract, the mesh."""
