"""Images changed a little in training, so that no slice is known by heart."""

from __future__ import annotations

import dataclasses

import numpy as np

from synermedgen_jax.input.packing import ReadSlice
from synermedgen_jax.tasks.example import Example

# Of these no text speaks of a side, as those that come from files may.
_SIDELESS = ('cts', 'mi', 'tia', 'synthesis', 'reconstruction')


@dataclasses.dataclass(frozen=True)
class Augment:
  """How the images of training examples are changed.

  Attributes:
    mirror: how often all images of an example have their columns reversed;
      bodies are nearly symmetric, so each passes for another subject's.
    noise: standard deviation of the Gaussian noise on images of questions,
      which are in [-1, 1]; images that are synthesised or condition it get
      none.
  """

  mirror: float = 0.0
  noise: float = 0.0

  def reader(
    self, read: ReadSlice, example: Example, rng: np.random.Generator
  ) -> ReadSlice:
    """Reads the images of `example` as they are changed this time."""
    mirrored = example.task in _SIDELESS and rng.random() < self.mirror
    asked = all(span.kind != 'vae_image' for span in example.spans)
    noise = self.noise if asked else 0.0

    def changed(ref):
      image = read(ref)
      if mirrored:
        image = image[:, ::-1]
      if noise:
        image = image + noise * rng.standard_normal(image.shape, np.float32)
      return image

    return changed
