"""Rigid registration of a volume to another one of its subject.

SimpleITK maximises Mattes mutual information (Mattes et al. 2003, IEEE TMI 22,
120-128) from the shift of the coarse search. The metric counts only points
inside both volumes, so the search may end far away. It is therefore run in both
directions, and the motion with the better score of the coarse search is taken,
or the shift alone if both left the overlap.
The result moves the affine of the volume; its voxels stay as they are.
"""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from jaxtyping import Float

from synermedgen_jax.slices import coarse_alignment
from synermedgen_jax.slices.volumes import Volume
from synermedgen_jax.slices.windows import Window

_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_BINS = 32
_SAMPLES = 100_000  # voxels at which the metric is evaluated
_SMOOTHING_MM = (2.0, 1.0)  # of each level
# Least score, relative to that of the start, which is the best of its lattice.
_LEAST = 0.8


def register_rigid(
  fixed: Volume, moving: Volume, windows: tuple[Window, Window]
) -> Float[np.ndarray, '4 4']:
  """Estimates the rotation and shift that lay `moving` onto `fixed`.

  The result is the same in every run. Mirror images are not corrected.

  Args:
    fixed: the reference volume.
    moving: a volume of the same subject.
    windows: windows of `fixed` and of `moving`.

  Returns:
    A matrix from RAS+ millimetres to RAS+ millimetres: `moved(moving, matrix)`
    lies on `fixed`.

  Raises:
    RuntimeError: SimpleITK cannot evaluate the metric, for example because the
      volumes do not overlap.
  """
  parts = [
    coarse_alignment.measured_part(volume, window)
    for volume, window in zip((fixed, moving), windows, strict=True)
  ]
  start = np.eye(4)
  start[:3, 3] = -np.array(coarse_alignment.search(*parts)[0].mm)
  back = _maximised(*reversed(parts), np.linalg.inv(start))
  candidates = [_maximised(*parts, start), np.linalg.inv(back)]

  def score(matrix) -> float:
    return coarse_alignment.similarity(parts[0], moved(parts[1], matrix))

  scores = [score(matrix) for matrix in candidates]
  best = candidates[int(np.argmax(scores))]
  if max(scores) < _LEAST * score(start):
    best = start
  # Threads add in any order: the last digits differ between runs.
  return np.round(best, 6)


def _maximised(
  fixed: Volume, moving: Volume, start: Float[np.ndarray, '4 4']
) -> Float[np.ndarray, '4 4']:
  """The motion at a maximum of mutual information, from the shift `start`."""
  transform = sitk.Euler3DTransform()
  transform.SetCenter((_LPS[:3, :3] @ fixed.corners.mean(0)).tolist())
  # The transform maps points of `fixed` to points of `moving`.
  transform.SetTranslation((_LPS[:3, :3] @ -start[:3, 3]).tolist())
  method = sitk.ImageRegistrationMethod()
  method.SetMetricAsMattesMutualInformation(_BINS)
  method.SetMetricSamplingStrategy(method.REGULAR)
  method.SetMetricSamplingPercentage(min(1.0, _SAMPLES / fixed.data.size), 1)
  method.SetInterpolator(sitk.sitkLinear)
  method.SetOptimizerAsRegularStepGradientDescent(
    learningRate=1.0,
    minStep=1e-3,
    numberOfIterations=300,
    relaxationFactor=0.7,
  )
  method.SetOptimizerScalesFromPhysicalShift()
  method.SetShrinkFactorsPerLevel([1] * len(_SMOOTHING_MM))
  method.SetSmoothingSigmasPerLevel(_SMOOTHING_MM)
  method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
  method.SetInitialTransform(transform, inPlace=True)
  method.Execute(_image(fixed), _image(moving))
  rotation = np.asarray(transform.GetMatrix()).reshape(3, 3)
  centre = np.asarray(transform.GetCenter())
  matrix = np.eye(4)
  matrix[:3, :3] = rotation
  matrix[:3, 3] = (
    centre + np.asarray(transform.GetTranslation()) - rotation @ centre
  )
  return _LPS @ np.linalg.inv(matrix) @ _LPS


def moved(volume: Volume, matrix: Float[np.ndarray, '4 4']) -> Volume:
  """The volume after a rigid motion in RAS+ millimetres."""
  return Volume(volume.data, matrix @ volume.affine)


def _image(volume: Volume) -> sitk.Image:
  """The volume as a SimpleITK image."""
  affine = _LPS @ volume.affine
  image = sitk.GetImageFromArray(
    np.ascontiguousarray(volume.data.transpose(2, 1, 0))
  )
  image.SetSpacing(volume.spacing.tolist())
  image.SetDirection((affine[:3, :3] / volume.spacing).ravel().tolist())
  image.SetOrigin(affine[:3, 3].tolist())
  return image
