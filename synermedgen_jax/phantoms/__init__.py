"""Digital phantoms: drawn anatomy, simulated scanners, known truth."""
