"""Volumes of the worst, median and best case of each route, for the viewer.

`evaluate` on all slices writes WORKDIR/evaluation/volumes/ROUTE/KIND.npz, where
KIND is one of `KINDS`, with the arrays that `read_shown_case` describes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, UInt8

from synermedgen_jax.core.modalities import Route, route_named
from synermedgen_jax.evaluation.subjects import ResultError
from synermedgen_jax.reporting.pictures import route_title
from synermedgen_jax.reporting.result_files import EVALUATE_AGAIN, read_npz
from synermedgen_jax.reporting.viewer import (
  Case,
  Contents,
  View,
  frame,
  view_of,
)

KINDS = ('worst', 'median', 'best')  # by SSIM; embedded in this order


@dataclasses.dataclass(frozen=True)
class ShownCase:
  """All slices of a case of a route.

  Attributes:
    route: sources -> target.
    kind: one of `KINDS`.
    sources: slices of each source.
    synthesis, truth: slices of the target.
    mask: body mask.
    affine: voxel (w, h, z) to RAS+ mm.
    subject: name of the subject.
    ssim: SSIM of the case in the body mask.
    windows: physical values of 0 and 255 of each source, the synthesis and the
      truth.
  """

  route: Route
  kind: str
  sources: UInt8[np.ndarray, 's z h w']
  synthesis: UInt8[np.ndarray, 'z h w']
  truth: UInt8[np.ndarray, 'z h w']
  mask: Bool[np.ndarray, 'z h w']
  affine: Float[np.ndarray, '4 4']
  subject: str
  ssim: float
  windows: Float[np.ndarray, 's+2 2']

  def views(self) -> list[View]:
    """Sources, synthesis and truth for the viewer."""
    target = self.route.target
    spans = [(low, high) for low, high in self.windows.tolist()]
    sources = zip(self.route.sources, self.sources, strict=True)
    parts = [
      *(('source', *source) for source in sources),
      ('synthesis', target, self.synthesis),
      ('truth', target, self.truth),
    ]
    return [
      view_of(*part, span) for part, span in zip(parts, spans, strict=True)
    ]


def shown_paths(folder: Path, routes: Iterable[str]) -> list[Path]:
  """The files of some routes, all worst cases first.

  Args:
    folder: the folder `evaluation` of a workdir.
    routes: names of routes; the folder may have others of earlier evaluations.
  """
  paths = [
    folder / 'volumes' / route / f'{kind}.npz'
    for kind in KINDS
    for route in routes
  ]
  return [path for path in paths if path.is_file()]


def read_shown_case(path: Path) -> ShownCase:
  """Reads `ROUTE/KIND.npz`.

  Its arrays are `sources` uint8 (s, z, h, w), `synthesis` and `truth` uint8
  (z, h, w), `mask` bool (z, h, w), `affine` float64 (4, 4), `subject` text,
  `ssim` float, and `windows` float64 (s + 2, 2), low and high of each source,
  of the synthesis and of the truth in physical units, which are the values of
  0 and 255. The affine is that of the grid of slices (`slices.grids`): it maps
  (column, row, slice), so (w, h, z), the order of axes after `from_slices`, to
  RAS+ mm.

  Raises:
    ResultError: the file cannot be read, or an array is not as stated.
  """
  route = route_named(path.parent.name)
  names = ('sources', 'synthesis', 'truth', 'mask')
  about = ('affine', 'subject', 'ssim', 'windows')
  arrays = read_npz(path, (*names, *about))
  sources, synthesis, truth, mask = (arrays[name] for name in names)
  affine, windows = arrays['affine'], arrays['windows']
  count = len(route.sources)
  problem = ''
  if mask.ndim != 3 or not mask.size or mask.dtype != bool:
    problem = f'mask is {mask.dtype} {mask.shape}, not bool (z, h, w)'
  elif any(x.dtype != np.uint8 for x in (sources, synthesis, truth)):
    problem = 'sources, synthesis and truth must be uint8'
  elif (
    sources.shape != (count, *mask.shape)
    or synthesis.shape != mask.shape
    or truth.shape != mask.shape
  ):
    problem = f'volumes differ in shape, or not {count} source(s) are shown'
  elif affine.shape != (4, 4) or not _invertible(affine):
    problem = 'affine is not an invertible (4, 4) matrix'
  elif windows.shape != (count + 2, 2) or not _increasing(windows):
    problem = f'windows are not {count + 2} pairs, the lower value first'
  elif arrays['ssim'].shape or not math.isfinite(arrays['ssim']):
    problem = 'ssim is not a number'
  if problem:
    raise ResultError(f'{path}: {problem}; {EVALUATE_AGAIN}')
  return ShownCase(
    route,
    path.stem,
    sources,
    synthesis,
    truth,
    mask,
    affine.astype(np.float64),
    str(arrays['subject']),
    float(arrays['ssim']),
    windows.astype(np.float64),
  )


def _invertible(affine: np.ndarray) -> bool:
  return bool(
    np.isfinite(affine).all()
    and np.array_equal(affine[3], (0, 0, 0, 1))
    and abs(np.linalg.det(affine[:3, :3])) > 1e-12
  )


def _increasing(windows: np.ndarray) -> bool:
  return bool(
    np.isfinite(windows).all() and (windows[:, 0] < windows[:, 1]).all()
  )


def contents_of(
  paths: Iterable[Path], budget: float = float('inf')
) -> tuple[Contents, int]:
  """Puts cases into a viewer, in order, until the budget is used.

  One case is in memory at a time.

  Args:
    paths: files, see `shown_paths`.
    budget: most characters that the viewer may take in a page.

  Returns:
    The viewer, and the number of cases that are left out.
  """
  contents, left_out = Contents(), 0
  for path in paths:
    shown = read_shown_case(path)
    case = Case(
      group=route_title(shown.route),
      title=f'{shown.kind}: {shown.subject}, SSIM {shown.ssim:.3f}',
      affine=shown.affine,
      views=shown.views(),
      mask=shown.mask,
    )
    if left_out or not contents.add(case, budget - frame()):
      left_out += 1
  return contents, left_out
