"""The small base model: pretrained on drawn scenes, nothing medical."""
