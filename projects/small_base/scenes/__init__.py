"""Procedural pictures that show nothing medical, and what is asked of them."""
