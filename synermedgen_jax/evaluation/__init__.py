"""Numbers and pictures of how well it works."""
