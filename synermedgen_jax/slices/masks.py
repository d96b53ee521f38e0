"""Reads the body mask and the lesion mask of a case."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from synermedgen_jax.core.modalities import Modality
from synermedgen_jax.slices.datasets import CaseFiles
from synermedgen_jax.slices.grids import Grid, resample, to_slices
from synermedgen_jax.slices.registration import moved
from synermedgen_jax.slices.volumes import (
  Volume,
  VolumeError,
  check_same_grid,
  read_volume,
  same_grid,
)


@dataclasses.dataclass(frozen=True)
class DrawnMask:
  """A mask that was drawn on one of the volumes of a case.

  Attributes:
    volume: ones inside, else zeros.
    drawn_on: the modality whose volume has the mask's grid.
  """

  volume: Volume
  drawn_on: Modality

  def on_grid(
    self,
    grid: Grid,
    transforms: Mapping[Modality, Float[np.ndarray, '4 4']],
  ) -> Float[np.ndarray, 'z h w']:
    """The share of the mask in each pixel.

    Args:
      grid: grid of the slices.
      transforms: matrices that moved volumes onto the reference; the mask moves
        with the volume on which it was drawn.
    """
    matrix = transforms.get(self.drawn_on, np.eye(4))
    return to_slices(resample(moved(self.volume, matrix), grid, fill=0))


def drawn_masks(
  files: CaseFiles, volumes: Mapping[Modality, Volume], reference: Modality
) -> dict[str, DrawnMask]:
  """Reads the masks of a case: 'body' and 'lesion', those that it has.

  Args:
    files: files of the case.
    volumes: its volumes, as read.
    reference: modality that is taken if several volumes have a mask's grid.

  Raises:
    VolumeError: the body mask cannot be read or has one value alone; as
      `read_lesions`; or no volume has the grid of a mask, which may then belong
      to something else.
  """
  masks = {}
  if files.mask:
    read = read_volume(files.mask)
    body = Volume((read.data > 0).astype(np.float32), read.affine)
    masks['body'] = files.mask, body
  if files.lesion:
    lesion = read_lesions(files.lesion, files.lesion_labels)
    masks['lesion'] = files.lesion, lesion
  drawn = {}
  for name, (path, mask) in masks.items():
    drawn_on = next(
      (m for m in (reference, *volumes) if same_grid(volumes[m], mask)),
      reference,
    )
    check_same_grid(
      path,
      mask,
      files.files[drawn_on],
      volumes[drawn_on],
      remedy='resample the mask onto one of the volumes of subject '
      f'{files.subject!r}, or remove it.',
    )
    drawn[name] = DrawnMask(mask, drawn_on)
  return drawn


def read_lesions(path: Path, labels: Sequence[int]) -> Volume:
  """Reads a lesion mask as zeros and ones.

  Args:
    path: the file; a mask of zeros alone states that there is no lesion.
    labels: values that mark a lesion; zero marks everything else.

  Raises:
    VolumeError: the file cannot be read, marks every voxel, or has a value that
      is neither zero nor one of the labels.
  """
  volume = read_volume(path, may_be_zero=True)
  unknown = np.setdiff1d(volume.data, [0, *labels])
  if unknown.size:
    raise VolumeError(
      f'{path}: has the value {unknown[0]:g}; expected a lesion mask of 0 and '
      f'{", ".join(map(str, labels))}.'
    )
  return Volume((volume.data > 0).astype(np.float32), volume.affine)
