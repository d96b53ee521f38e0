"""Import and export of BAGEL's weights and data formats."""
