"""The ablation study on digital phantoms."""
