"""Drift of anatomy: whether a synthesis shows the place of its source.

Mutual information (Studholme et al. 1999) compares a synthesis with slices of
another modality, SSIM with slices of its own.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

from synermedgen_jax.evaluation.ssim import stored_slice_ssim_map
from synermedgen_jax.slices.alignment import best_shift, bins_of, information

Slices = Float[np.ndarray, 'z h w']
Volume = Float[np.ndarray, 'n h w']
Indices = Int[np.ndarray, ' z']

NEIGHBOURS = 3  # K, slices on either side that a synthesis is compared with
_REACH_MM, _REACH_PIXELS = 16.0, 4


def in_plane(
  synthesis: Slices, source: Slices, pixel: tuple[float, float]
) -> Float[np.ndarray, ' z']:
  """Distance in mm by which each synthesis is shifted from its source slice.

  The shift along rows and columns has the largest normalised mutual
  information. It is searched up to 16 mm or 4 pixels, whichever is more. The
  shift of an image without structure is random.

  Args:
    synthesis: slices in [-1, 1].
    source: the slices that they were made from, in [-1, 1].
    pixel: mm between pixels along (row, column).
  """
  reach = np.floor(_REACH_MM / np.array(pixel)).astype(int)
  reach = np.maximum(reach, _REACH_PIXELS)
  reach = np.minimum(reach, np.array(synthesis.shape[1:]) // 5)
  shifts = [
    best_shift(bins_of(a), bins_of(b), reach, ends=True)[0]
    for a, b in zip(source, synthesis, strict=True)
  ]
  return np.linalg.norm(np.array(shifts) * pixel, axis=1)


def through_plane(
  synthesis: Slices, volume: Volume, indices: Indices, usable: range
) -> Float[np.ndarray, ' z']:
  """Slices between each synthesis and the source slice that it fits best.

  The fit is the normalised mutual information, of the source slices up to
  `NEIGHBOURS` away.

  Args:
    synthesis: slices in [-1, 1].
    volume: all slices of the source.
    indices: place of each synthesis in the volume.
    usable: slices of the volume that are compared.
  """
  none = np.zeros(2, int)
  codes = bins_of(volume)
  distances = []
  for image, index in zip(bins_of(synthesis), indices, strict=True):
    near = _near(int(index), usable)
    fits = [information(codes[i], image, none) for i in near]
    distances.append(abs(near[int(np.argmax(fits))] - index))
  return np.array(distances, float)


def nearest_target(
  synthesis: Slices,
  volume: Volume,
  indices: Indices,
  usable: range,
  mask: Bool[np.ndarray, 'z h w'],
) -> Float[np.ndarray, ' z']:
  """Slices between each synthesis and the true target slice most like it.

  Likeness is the mean SSIM in the body mask of the slice, of the true target
  slices up to `NEIGHBOURS` away.

  Args:
    synthesis: slices in [-1, 1].
    volume: all true slices of the target.
    indices: place of each synthesis in the volume.
    usable: slices of the volume that are compared.
    mask: body masks of the slices; a slice without body is compared in the
      full frame.
  """
  # A fixed number of candidates, so that few shapes are compiled.
  steps = np.arange(-NEIGHBOURS, NEIGHBOURS + 1)
  places = indices[:, None] + steps
  inside = (places >= usable.start) & (places < usable.stop)
  places = np.clip(places, usable.start, usable.stop - 1)
  maps = stored_slice_ssim_map(
    np.repeat(synthesis, len(steps), 0), volume[places.ravel()]
  ).reshape(*places.shape, *synthesis.shape[1:])
  body = body_or_frame(mask)
  area = body.sum((1, 2))[:, None]
  likeness = (maps * body[:, None]).sum((2, 3)) / area
  likeness = np.where(inside, likeness, -np.inf)
  # Of equally similar slices, the nearest one counts.
  order = np.argsort(np.abs(steps), kind='stable')
  best = order[np.argmax(likeness[:, order], axis=1)]
  return np.abs(steps[best]).astype(float)


def body_or_frame(
  mask: Bool[np.ndarray, 'z h w'],
) -> Bool[np.ndarray, 'z h w']:
  """The body masks, and the full frame of slices without body."""
  return np.where(mask.any((1, 2), keepdims=True), mask, True)


def _near(index: int, usable: range) -> list[int]:
  """Slices that are compared, the nearest first."""
  near = range(
    max(index - NEIGHBOURS, usable.start),
    min(index + NEIGHBOURS + 1, usable.stop),
  )
  return sorted(near, key=lambda i: abs(i - index))
