"""SynerMedGen in JAX: medical image understanding and synthesis in one model."""

__version__ = '0.1.0'
