"""SynerMedGen in JAX: understand medical images, synthesise modalities."""

__version__ = '0.1.0'
