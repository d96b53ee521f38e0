"""Data in motion: examples to tokens to packed batches."""
