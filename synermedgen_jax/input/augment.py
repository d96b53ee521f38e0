"""Random changes of training images, against memorising the slices."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from synermedgen_jax.input.packing import ReadSlice
from synermedgen_jax.tasks.example import Example
from synermedgen_jax.tasks.registry import task_named

# The limits of a warp: degrees, the logarithm of the scale, parts of the side.
_TURN, _ZOOM, _SHIFT = 12.0, 0.15, 1 / 16

Image = Float[np.ndarray, 'h w *channels']


@dataclasses.dataclass(frozen=True)
class Augment:
  """How the images of training examples are changed.

  Attributes:
    mirror: share of the examples whose images all have their columns reversed.
      Bodies are nearly symmetric, so each passes for another subject's. Tasks
      whose texts may name a side are left out (`Task.mirror`).
    warp: share of the synthesis examples whose images, source and target
      alike, are turned by up to 12 degrees, scaled by up to 16 % and moved by
      up to 1/16 of their side. Images of questions are never warped.
    noise: standard deviation of the Gaussian noise on images of questions,
      which are in [-1, 1]. Images of synthesis examples get none.
  """

  mirror: float = 0.0
  warp: float = 0.0
  noise: float = 0.0

  def reader(
    self, read: ReadSlice, example: Example, rng: np.random.Generator
  ) -> ReadSlice:
    """Wraps `read` in one random change for all images of `example`."""
    may_mirror = task_named(example.task).mirror
    mirrored = may_mirror and rng.random() < self.mirror
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
  """One rotation, scale and shift about the middle; edges are extended."""
  angle = np.radians(rng.uniform(-_TURN, _TURN))
  cos, sin = np.cos(angle), np.sin(angle)
  # Maps a place in the result to the place in the image that it shows.
  matrix = np.exp(rng.uniform(-_ZOOM, _ZOOM)) * np.array(
    [[cos, -sin], [sin, cos]]
  )
  shift = rng.uniform(-_SHIFT, _SHIFT, 2)

  def warp(image):
    if image.ndim == 3:  # (h, w, channels): a colour image from a file
      return np.stack([warp(c) for c in np.moveaxis(image, -1, 0)], axis=-1)
    side = np.array(image.shape)
    middle = (side - 1) / 2
    offset = middle - matrix @ (middle + shift * side)
    # Cubic: linear interpolation would blur the target of synthesis.
    out = ndimage.affine_transform(
      image, matrix, offset, order=3, mode='nearest'
    )
    return np.clip(out, image.min(), image.max())

  return warp
