"""Images changed a little in training, so that no slice is known by heart."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from synermedgen_jax.input.packing import ReadSlice
from synermedgen_jax.tasks.example import Example

# Of these no text speaks of a side, as those that come from files may.
_SIDELESS = ('cts', 'mi', 'tia', 'synthesis', 'reconstruction')
# How far a warp goes: degrees, the logarithm of a scale, and 1/16 of a side.
_TURN, _ZOOM, _SHIFT = 12.0, 0.15, 1 / 16

Image = Float[np.ndarray, 'h w *channels']


@dataclasses.dataclass(frozen=True)
class Augment:
  """How the images of training examples are changed.

  Attributes:
    mirror: how often all images of an example have their columns reversed;
      bodies are nearly symmetric, so each passes for another subject's.
    warp: how often an image that is synthesised and those that condition it
      are turned by up to 12 degrees, scaled by up to 16 % and moved by up to
      1/16 of their side, as one; images of questions never are.
    noise: standard deviation of the Gaussian noise on images of questions,
      which are in [-1, 1]; images that are synthesised or condition it get
      none.
  """

  mirror: float = 0.0
  warp: float = 0.0
  noise: float = 0.0

  def reader(
    self, read: ReadSlice, example: Example, rng: np.random.Generator
  ) -> ReadSlice:
    """Reads the images of `example` as they are changed this time."""
    mirrored = example.task in _SIDELESS and rng.random() < self.mirror
    asked = all(span.kind != 'vae_image' for span in example.spans)
    noise = self.noise if asked else 0.0
    warped = not asked and rng.random() < self.warp and _draw_warp(rng)

    def changed(ref):
      image = read(ref)
      if mirrored:
        image = image[:, ::-1]
      if warped:
        image = warped(image)
      if noise:
        image = image + noise * rng.standard_normal(image.shape, np.float32)
      return image

    return changed


def _draw_warp(rng: np.random.Generator) -> Callable[[Image], Image]:
  """One turn, scale and shift about the middle; the rim goes on outside."""
  angle = np.radians(rng.uniform(-_TURN, _TURN))
  cos, sin = np.cos(angle), np.sin(angle)
  # From a place in the result to the one in the image that it shows.
  matrix = np.exp(rng.uniform(-_ZOOM, _ZOOM)) * np.array(
    [[cos, -sin], [sin, cos]]
  )
  shift = rng.uniform(-_SHIFT, _SHIFT, 2)

  def warp(image):
    if image.ndim == 3:  # a picture in colour, from a file
      return np.stack([warp(c) for c in np.moveaxis(image, -1, 0)], axis=-1)
    side = np.array(image.shape)
    middle = (side - 1) / 2
    offset = middle - matrix @ (middle + shift * side)
    # Cubic: a linear one would blur what is to be synthesised.
    out = ndimage.affine_transform(
      image, matrix, offset, order=3, mode='nearest'
    )
    return np.clip(out, image.min(), image.max())

  return warp
