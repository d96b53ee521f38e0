"""Plans the memory, communication and speed of a run without its devices."""
