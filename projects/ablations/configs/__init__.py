"""The configs of the ablation study's arms."""
