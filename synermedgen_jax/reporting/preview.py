"""A picture of a prediction in three planes, sources beside the synthesis."""

from __future__ import annotations

import nibabel as nib
import numpy as np
from matplotlib.figure import Figure

from synermedgen_jax.core import files
from synermedgen_jax.inference.predicting import Written
from synermedgen_jax.inference.sidecar import NOTICE, add_file
from synermedgen_jax.reporting.pictures import to_png
from synermedgen_jax.slices.input_files import volume_stem
from synermedgen_jax.slices.volumes import Volume
from synermedgen_jax.slices.windows import FIXED_WINDOWS, Window, choose_window

_INCHES = 2.8  # width of a panel
_TITLES = 0.6  # height of the titles in inches
# Axis of a volume in RAS order -> title, and which axes are right and up.
_PLANES = (('axial', 2, 0, 1), ('coronal', 1, 0, 2), ('sagittal', 0, 1, 2))


def write_preview(written: Written) -> None:
  """Writes OUTPUT.png beside the output OUTPUT.nii.gz."""
  output = written.request.output
  png = to_png(preview(written))
  path = output.with_name(f'{volume_stem(output)}.png')
  files.write_bytes(path, png)
  add_file(output, path)


def preview(written: Written) -> Figure:
  """The middle of the body in three planes.

  The patient's right is on the left of axial and coronal planes, as in
  radiology.
  """
  route = written.request.route
  shown = [
    (m.label, volume, choose_window(m, volume.data, FIXED_WINDOWS))
    for m, volume in written.sources.items()
  ]
  prediction = written.prediction
  title = f'synthetic {route.target.label}'
  shown.append((title, prediction.volume, prediction.window))
  heights = _heights(shown[0][1])
  figure = Figure(
    figsize=(_INCHES * len(shown), _INCHES * sum(heights) + _TITLES),
    layout='constrained',
    facecolor='black',
  )
  axes = figure.subplots(
    len(_PLANES), len(shown), squeeze=False, height_ratios=heights
  )
  place = _middle(shown[0][1], shown[0][2])
  for column, (label, volume, window) in zip(axes.T, shown, strict=True):
    column[0].set_title(label, color='white', fontsize=9)
    data, spacing = _canonical(volume)
    for ax, plane in zip(column, _PLANES, strict=True):
      _draw(ax, data, spacing, window, plane, place)
  figure.suptitle(
    f'{written.request.name}: {NOTICE.lower()}', color='white', fontsize=9
  )
  return figure


def _canonical(volume: Volume) -> tuple[np.ndarray, np.ndarray]:
  """Voxels in the order of RAS+, and the size of a voxel in mm."""
  image = nib.as_closest_canonical(
    nib.Nifti1Image(np.float32(volume.data), volume.affine)
  )
  return image.get_fdata(dtype=np.float32), np.array(image.header.get_zooms())


def _heights(volume: Volume) -> list[float]:
  """Height of each plane over its width."""
  data, spacing = _canonical(volume)
  size = np.array(data.shape) * spacing
  return [float(size[up] / size[right]) for _, _, right, up in _PLANES]


def _middle(volume: Volume, window: Window) -> tuple[int, ...]:
  """The centre of the voxels that are not background."""
  data, _ = _canonical(volume)
  body = np.argwhere(window.normalise(data) > -0.8)
  if not body.size:
    return tuple(n // 2 for n in data.shape)
  return tuple(((body.min(0) + body.max(0)) // 2).tolist())


def _draw(ax, data, spacing, window: Window, plane, place) -> None:
  name, axis, right, up = plane
  image = np.take(data, place[axis], axis)  # remaining axes: right, up
  radiological = right == 0
  ax.imshow(
    (image[::-1] if radiological else image).T,
    cmap='gray',
    vmin=window.low,
    vmax=window.high,
    origin='lower',
    aspect=spacing[up] / spacing[right],
    interpolation='nearest',
  )
  ax.set_axis_off()
  sides = ('R', 'L') if radiological else ('P', 'A')
  for x, side in zip((0.02, 0.98), sides, strict=True):
    ax.text(
      *(x, 0.5, side),
      color='#ffcf66',
      fontsize=7,
      transform=ax.transAxes,
      ha='left' if x < 0.5 else 'right',
      va='center',
    )
  ax.text(
    *(0.5, 0.01, name),
    color='#999',
    fontsize=7,
    transform=ax.transAxes,
    ha='center',
    va='bottom',
  )
