"""Tasks: how examples are built from pairs of slices, and the table of them."""
