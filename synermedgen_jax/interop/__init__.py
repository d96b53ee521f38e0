"""Exchange with other code: BAGEL's weights and data formats."""
