"""Configs: defaults, errors, the flag --config, the model they name."""
