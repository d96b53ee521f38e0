"""The small base's stages, in the order of run.sh."""
