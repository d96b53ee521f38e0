"""Inference: answers to questions, sampled slices, translated volumes."""
