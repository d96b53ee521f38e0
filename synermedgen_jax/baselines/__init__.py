"""Published systems of image translation, trained on the same slices."""
