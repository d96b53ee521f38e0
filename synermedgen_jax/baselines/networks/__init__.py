"""Networks of the baselines: images (b, h, w, c) in [-1, 1] to images."""
