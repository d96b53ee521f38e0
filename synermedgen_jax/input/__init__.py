"""The input pipeline: examples to tokens to packed batches."""
