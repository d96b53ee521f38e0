"""What is asked of a pair of slices: CTS, MI, TIA, synthesis."""
