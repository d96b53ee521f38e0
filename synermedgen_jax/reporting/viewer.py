"""A viewer of linked volumes, as a part of an HTML page.

A page has at most one viewer. It holds NiiVue and all volumes within itself,
compressed; the browser decompresses those of the selected case. `viewer.js`
draws a canvas per volume, one of the difference between synthesis and truth,
and charts.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import gzip
import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import nibabel as nib
import numpy as np
from jaxtyping import Bool, Float, Num, UInt8
from markupsafe import Markup
from scipy import ndimage

from synermedgen_jax.core.modalities import Modality
from synermedgen_jax.reporting.niivue import niivue_module
from synermedgen_jax.reporting.rendering import asset, render
from synermedgen_jax.slices.grids import to_slices

Role = Literal['source', 'synthesis', 'truth']
MARGIN = 2  # voxels around the body mask
# Characters of a case and a volume beside their contents.
_PER_CASE, _PER_VOLUME = 2, 100
# NiiVue draws these types; JavaScript has arrays of the same names.
_TYPES = ('uint8', 'int16', 'float32')


@dataclasses.dataclass(frozen=True)
class Preset:
  """A range of displayed values.

  Attributes:
    name: name in the list of windows.
    low, high: values of black and white, in the unit of the volume.
  """

  name: str
  low: float
  high: float


@dataclasses.dataclass(frozen=True)
class View:
  """A volume and how it is displayed.

  Attributes:
    role: what the volume is. A case has one synthesis, any number of sources,
      and one truth or none.
    label: name of the modality.
    unit: physical unit of the values.
    volume: voxels (z, h, w): uint8, of which 0 and 255 are the ends of
      `span`, or int16 or float32 in physical units.
    span: physical values of 0 and 255; None unless the volume is uint8.
    presets: windows, the initial one first.
    inverted: whether high values are dark, as is usual for PET.
  """

  role: Role
  label: str
  unit: str
  volume: Num[np.ndarray, 'z h w']
  span: tuple[float, float] | None
  presets: Sequence[Preset]
  inverted: bool = False

  def __post_init__(self):
    if self.volume.dtype.name not in _TYPES:
      raise ValueError(f'Voxels are {self.volume.dtype}, not of {_TYPES}.')
    if (self.span is None) == (self.volume.dtype == np.uint8):
      raise ValueError('A span belongs to volumes of uint8, and to no other.')
    if not self.presets:
      raise ValueError('A view needs the window that it begins with.')


@dataclasses.dataclass(frozen=True)
class Case:
  """Volumes on one grid.

  Attributes:
    group: title of the cases that are listed together, such as a route.
    title: title within the group, such as 'worst: s3, SSIM 0.612'.
    affine: (4, 4), voxel (w, h, z) to RAS+ mm.
    views: the volumes.
    mask: voxels that charts and the range of differences are about; None =
      all. What is more than `MARGIN` voxels away is not kept.
  """

  group: str
  title: str
  affine: Float[np.ndarray, '4 4']
  views: Sequence[View]
  mask: Bool[np.ndarray, 'z h w'] | None = None

  def __post_init__(self):
    shapes = {view.volume.shape for view in self.views}
    shapes |= set() if self.mask is None else {self.mask.shape}
    if len(shapes) != 1:
      raise ValueError(f'Volumes of a case differ in shape: {sorted(shapes)}.')
    roles = [view.role for view in self.views]
    if roles.count('synthesis') != 1 or roles.count('truth') > 1:
      raise ValueError(
        f'A case has one synthesis and at most one truth, not {roles}.'
      )


def view_of(
  role: Role,
  modality: Modality,
  volume: Num[np.ndarray, 'z h w'],
  span: tuple[float, float],
) -> View:
  """A view with the usual windows and colours of its modality.

  Args:
    role: what the volume is.
    modality: its modality.
    volume: voxels, see `View`.
    span: lowest and highest value to display, in the unit of the modality; of
      uint8, the values of 0 and 255.
  """
  low, high = map(float, span)
  everything = Preset('all values', low, high)
  presets = [everything]
  if modality in (Modality.CT, Modality.CBCT):
    presets += _CT_WINDOWS
  elif modality == Modality.PET:
    # Most tissue has far lower uptake than the hottest organs.
    presets = [Preset('lower half', low, (low + high) / 2), everything]
  return View(
    role,
    modality.label,
    modality.unit,
    volume,
    (low, high) if volume.dtype == np.uint8 else None,
    presets,
    inverted=modality == Modality.PET,
  )


_CT_WINDOWS = (
  Preset('soft tissue 400/40', -160, 240),
  Preset('brain 80/40', 0, 80),
  Preset('bone 1500/300', -450, 1050),
)


def read_nifti(
  content: bytes,
) -> tuple[Float[np.ndarray, 'z h w'], Float[np.ndarray, '4 4']]:
  """Reads a NIfTI file in memory, gzipped or not.

  Returns:
    Values as float32 (z, h, w), scaled as the header says, and the affine.

  Raises:
    nibabel.filebasedimages.ImageFileError: it is no NIfTI file.
    ValueError: it has more than three dimensions.
  """
  if content[:2] == b'\x1f\x8b':
    content = gzip.decompress(content)
  image = nib.Nifti1Image.from_bytes(content)
  data = np.asarray(image.dataobj, np.float32)
  if data.ndim != 3:
    raise ValueError(f'The volume has {data.ndim} dimensions instead of 3.')
  return to_slices(data), image.affine.astype(np.float64)


def cropped(case: Case, margin: int = MARGIN) -> Case:
  """The case in the bounding box of its mask.

  Args:
    case: the case; without mask, or with an empty one, it stays as it is.
    margin: voxels that the box has around the mask.
  """
  if case.mask is None or not case.mask.any():
    return case
  box = []
  for axis in range(3):
    others = tuple({0, 1, 2} - {axis})
    inside = np.flatnonzero(case.mask.any(axis=others))
    first = max(int(inside[0]) - margin, 0)
    box.append(slice(first, int(inside[-1]) + margin + 1))
  box = tuple(box)
  z, h, w = (part.start for part in box)
  affine = np.array(case.affine, np.float64)
  affine[:3, 3] += affine[:3, :3] @ (w, h, z)
  return dataclasses.replace(
    case,
    affine=affine,
    views=[
      dataclasses.replace(view, volume=view.volume[box]) for view in case.views
    ],
    mask=case.mask[box],
  )


def _zones(mask: Bool[np.ndarray, 'z h w']) -> UInt8[np.ndarray, 'z h w']:
  """2 in the mask, 1 up to `MARGIN` voxels around it, 0 elsewhere."""
  cube = np.ones((3, 3, 3), bool)
  near = ndimage.binary_dilation(mask, cube, iterations=MARGIN)
  return mask.astype(np.uint8) + near


def residuals(volume: UInt8[np.ndarray, 'z h w']) -> UInt8[np.ndarray, 'z h w']:
  """Voxels less a prediction from their neighbours, modulo 256.

  The prediction is the median of the left and the upper neighbour and of left +
  upper - upper left, in each slice, with zeros beyond the edge. Differences
  compress better than voxels, and `viewer.js` adds the prediction again.
  """
  padded = np.pad(volume.astype(np.int16), ((0, 0), (1, 0), (1, 0)))
  left, upper = padded[:, 1:, :-1], padded[:, :-1, 1:]
  plane = left + upper - padded[:, :-1, :-1]
  lowest, highest = np.minimum(left, upper), np.maximum(left, upper)
  return (volume - np.clip(plane, lowest, highest)).astype(np.uint8)


class Contents:
  """The cases of a viewer, compressed; equal volumes are kept once.

  Attributes:
    size: characters that the cases take in the page, beside `frame`.
  """

  def __init__(self):
    self.size = 0
    self._cases: list[dict[str, Any]] = []
    self._volumes: dict[str, str] = {}

  def __len__(self) -> int:
    return len(self._cases)

  def add(self, case: Case, budget: float = float('inf')) -> bool:
    """Adds a case after `cropped`.

    Args:
      case: the case.
      budget: largest `size` that the case may lead to.

    Returns:
      Whether it was added; otherwise nothing has changed.
    """
    added: dict[str, str] = {}
    record = self._record(cropped(case), added)
    size = self.size + len(json.dumps(record)) + _PER_CASE
    size += sum(len(volume) + _PER_VOLUME for volume in added.values())
    if size > budget:
      return False
    self.size = size
    self._volumes |= added
    self._cases.append(record)
    return True

  def html(self, nonce: str = '') -> Markup:
    """The viewer as a part of a page that extends `base.html`.

    Args:
      nonce: as of `rendering.environment`.
    """
    return render(
      'viewer.html',
      cases=_json(self._cases),
      volumes=self._volumes,
      niivue=_packed_niivue(),
      script=asset('viewer_charts.js') + asset('viewer.js'),
      nonce=nonce,
    )

  def _record(self, case: Case, added: dict[str, str]) -> dict[str, Any]:
    """The case without voxels; packs those that are new into `added`."""
    z, h, w = case.views[0].volume.shape
    zones = _zones(np.ones((z, h, w), bool) if case.mask is None else case.mask)
    if not zones.any():
      zones += 1
    return {
      'group': case.group,
      'title': case.title,
      'shape': [w, h, z],
      'affine': np.asarray(case.affine, float).tolist(),
      'inverse': np.linalg.inv(case.affine).tolist(),
      'zones': self._add(zones, added),
      'views': [
        {
          'role': view.role,
          'label': view.label,
          'unit': view.unit,
          'type': view.volume.dtype.name,
          'span': view.span,
          'presets': [dataclasses.asdict(preset) for preset in view.presets],
          'inverted': view.inverted,
          'data': self._add(
            np.where(zones, view.volume, view.volume.min()), added
          ),
        }
        for view in case.views
      ],
    }

  def _add(self, volume: np.ndarray, added: dict[str, str]) -> str:
    content = np.ascontiguousarray(volume, volume.dtype.newbyteorder('<'))
    digest = hashlib.sha256(content).hexdigest()[:24]
    if digest not in self._volumes and digest not in added:
      coded = residuals(volume) if volume.dtype == np.uint8 else content
      added[digest] = _packed(coded.tobytes())
    return digest


def viewer(cases: Iterable[Case]) -> Markup:
  """The viewer of some cases as a part of a page that extends `base.html`."""
  contents = Contents()
  for case in cases:
    contents.add(case)
  return contents.html()


@functools.cache
def frame() -> int:
  """Bytes of a viewer without cases, most of them NiiVue."""
  return len(Contents().html().encode())


@functools.cache
def _packed_niivue() -> str:
  return _packed(niivue_module().encode())


def _packed(content: bytes) -> str:
  return base64.b64encode(gzip.compress(content, 9, mtime=0)).decode()


def _json(value: Any) -> Markup:
  """JSON that can stand in a script element."""
  return Markup(json.dumps(value).replace('<', '\\u003c'))
