"""Digital phantoms: anatomy, simulated scanners and ground truth."""
