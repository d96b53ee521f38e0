"""Data augmentation of training images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from synermedgen_jax.input.packing import ReadSlice
from synermedgen_jax.tasks.example import Example
from synermedgen_jax.tasks.registry import task_named

# Limits of a warp: degrees, logarithm of the scale, share of the side.
_TURN, _ZOOM, _SHIFT = 12.0, 0.15, 1 / 16

Image = Float[np.ndarray, 'h w *channels']


@dataclasses.dataclass(frozen=True)
class Augment:
  """Random changes of the images of training examples.

  Attributes:
    mirror: share of examples whose images are all mirrored left to right, which
      is plausible since bodies are nearly symmetric. Tasks whose texts may name
      a side are excluded (`Task.mirror`).
    warp: share of synthesis examples whose images, source and target alike, are
      rotated by up to 12 degrees, scaled by up to 16 % and shifted by up to
      1/16 of their side. Images of questions are never warped.
    noise: standard deviation of Gaussian noise on images of questions, which
      are in [-1, 1]. Images of synthesis examples get no noise.
  """

  mirror: float = 0.0
  warp: float = 0.0
  noise: float = 0.0

  def reader(
    self, read: ReadSlice, example: Example, rng: np.random.Generator
  ) -> ReadSlice:
    """Wraps `read` in one random change, the same for all images of `example`.

    Args:
      read: reads an image.
      example: the example, whose task decides which changes apply.
      rng: draws the change.

    Returns:
      A function like `read` that returns changed images.
    """
    may_mirror = task_named(example.task).mirror
    mirror = may_mirror and rng.random() < self.mirror
    is_question = all(span.kind != 'vae_image' for span in example.spans)
    noise = self.noise if is_question else 0.0
    warp = not is_question and rng.random() < self.warp and _draw_warp(rng)

    def read_changed(ref):
      image = read(ref)
      if mirror:
        image = image[:, ::-1]
      if warp:
        image = warp(image)
      if noise:
        image = image + noise * rng.standard_normal(image.shape, np.float32)
      return image

    return read_changed


def _draw_warp(rng: np.random.Generator) -> Callable[[Image], Image]:
  """A rotation, scaling and shift about the centre; edges are extended."""
  angle = np.radians(rng.uniform(-_TURN, _TURN))
  cos, sin = np.cos(angle), np.sin(angle)
  # Maps indices of the result to indices of the image.
  matrix = np.exp(rng.uniform(-_ZOOM, _ZOOM)) * np.array(
    [[cos, -sin], [sin, cos]]
  )
  shift = rng.uniform(-_SHIFT, _SHIFT, 2)

  def warp(image):
    if image.ndim == 3:  # (h, w, channels): a colour picture
      return np.stack([warp(c) for c in np.moveaxis(image, -1, 0)], axis=-1)
    side = np.array(image.shape)
    middle = (side - 1) / 2
    offset = middle - matrix @ (middle + shift * side)
    # Cubic, because linear interpolation would blur the synthesis target.
    out = ndimage.affine_transform(
      image, matrix, offset, order=3, mode='nearest'
    )
    return np.clip(out, image.min(), image.max())

  return warp
