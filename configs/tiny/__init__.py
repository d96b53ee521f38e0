"""Stages from random weights on phantoms, for two CPU cores."""
