"""Definitions for all layers: medical vocabulary, batch contract, mesh."""
