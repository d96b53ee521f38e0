"""Tasks: builders of examples from pairs of slices, and the table of tasks."""
