"""Volumes of the worst, median and best subject of each route, for a viewer.

WORKDIR/evaluation/volumes/ROUTE/KIND.npz, compressed, has these arrays:

* `sources` uint8 (s, z, h, w), `synthesis` and `truth` uint8 (z, h, w), `mask`
  bool (z, h, w): all usable slices of a case, and its body mask. 0 and 255 are
  the ends of a window;
* `windows` float64 (s + 2, 2): physical low and high of each source, of the
  synthesis and of the truth, those of the store;
* `affine` float64 (4, 4): (column, row, slice) to RAS+ mm; with it,
  `slices.grids.from_slices` of the physical values is a volume;
* `subject` text, the key of subjects.json, and `ssim` float64, its SSIM there:
  the mean over its cases, of the scored slices.

KIND is by the SSIM of subjects in the body mask, see `choose`. The volumes are
those of the subject's first case in the store.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import nibabel as nib
import numpy as np
from etils.epath import Path
from jaxtyping import Float, UInt8

from synermedgen_jax.core import files
from synermedgen_jax.evaluation.protocol import (
  Images,
  RouteCase,
  RoutePair,
  Scored,
  spread,
)

KINDS = ('worst', 'median', 'best')
_FOLDER = 'evaluation/volumes'
_SPOOL = 'evaluation/.volumes.partial'

# Route -> subject -> its scores, as in subjects.json.
BySubject = Mapping[str, Mapping[str, Mapping[str, Any]]]


def choose(ssim: Mapping[str, float]) -> dict[str, str]:
  """The subject of each kind.

  Args:
    ssim: subject -> SSIM.

  Returns:
    Kind -> subject: the lowest, the middle and the highest SSIM. The middle of
    an even number is the lower one of two, equal SSIMs are in the order of
    names. Two subjects are 'worst' and 'best', one is 'median'.
  """
  order = sorted(ssim, key=lambda subject: (ssim[subject], subject))
  if len(order) == 1:
    return {'median': order[0]}
  kinds = {'worst': order[0], 'best': order[-1]}
  if len(order) > 2:
    kinds['median'] = order[(len(order) - 1) // 2]
  return {kind: kinds[kind] for kind in KINDS if kind in kinds}


def chosen_pairs(
  pairs: Sequence[RoutePair], by_subject: BySubject
) -> list[RoutePair]:
  """The pairs, with all usable slices, of the subjects that are chosen.

  Args:
    pairs: the pairs that were scored, in the order of the store.
    by_subject: their scores.
  """
  chosen = {
    (route, subject)
    for route, scores in by_subject.items()
    for subject in choose(_ssim(scores)).values()
  }
  first: dict[tuple[str, str], RoutePair] = {}
  for pair in pairs:
    key = pair.route.name, pair.case.person
    if key in chosen and key not in first:
      whole = spread(pair.case.usable, 0)
      first[key] = RoutePair(pair.route, pair.case, whole)
  return list(first.values())


def volume_arrays(item: RouteCase, synthesis: Images) -> dict[str, np.ndarray]:
  """The arrays of a file, but for its SSIM.

  Args:
    item: a pair with all usable slices.
    synthesis: the synthesised slices in [-1, 1].
  """
  modalities = (*item.route.sources, item.route.target, item.route.target)
  windows = [item.case.modalities[modality] for modality in modalities]
  begin = nib.affines.from_matvec(np.eye(3), (0, 0, int(item.indices[0])))
  return {
    'sources': _levels(item.sources),
    'synthesis': _levels(synthesis),
    'truth': _levels(item.truth),
    'mask': item.mask,
    'affine': np.array(item.case.affine) @ begin,
    'subject': np.array(item.case.person),
    'windows': np.array([(w.low, w.high) for w in windows], np.float64),
  }


def _levels(images: Float[np.ndarray, ...]) -> UInt8[np.ndarray, ...]:
  """[-1, 1] to the nearest of 256 levels."""
  return np.round((np.clip(images, -1, 1) + 1) * 127.5).astype(np.uint8)


class VolumeFiles:
  """Volumes of all cases on disk, of which `publish` keeps those chosen.

  The volumes of one case are in memory at a time.
  """

  def __init__(self, workdir: Path):
    self._workdir = workdir
    self._cases: dict[tuple[str, str], Path] = {}

  def add(self, item: RouteCase, synthesis: Images) -> None:
    """Writes the volumes of a pair, unless its subject has some already."""
    key = item.route.name, item.case.person
    if key in self._cases:
      return
    path = self._workdir / _SPOOL / 'cases' / f'{len(self._cases)}.npz'
    files.write_npz(path, volume_arrays(item, synthesis), compressed=True)
    self._cases[key] = path

  def record(self, scored: Iterable[Scored]) -> Iterator[Scored]:
    """Adds scored pairs, with all usable slices, as they pass."""
    for item, synthesis, rows in scored:
      self.add(item, synthesis)
      yield item, synthesis, rows

  def publish(self, by_subject: BySubject) -> None:
    """Replaces WORKDIR/evaluation/volumes.

    Args:
      by_subject: scores of the subjects.
    """
    ready = self._workdir / _SPOOL / 'ready'
    ready.mkdir(parents=True, exist_ok=True)
    for route, scores in by_subject.items():
      ssim = _ssim(scores)
      for kind, subject in choose(ssim).items():
        content = io.BytesIO(self._cases[route, subject].read_bytes())
        with np.load(content, allow_pickle=False) as arrays:
          files.write_npz(
            ready / route / f'{kind}.npz',
            {**arrays, 'ssim': np.float64(ssim[subject])},
            compressed=True,
          )
    remove_volumes(self._workdir)
    ready.rename(self._workdir / _FOLDER)


def _ssim(scores: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
  return {subject: entry['ssim'] for subject, entry in scores.items()}


def remove_volumes(workdir: Path) -> None:
  """Removes the volumes of an earlier evaluation."""
  if (workdir / _FOLDER).exists():
    (workdir / _FOLDER).rmtree()


@contextlib.contextmanager
def collect_volumes(workdir: Path) -> Iterator[VolumeFiles]:
  """Files to collect volumes in; what was not published is removed after."""
  spool = workdir / _SPOOL
  if spool.exists():  # of an interrupted evaluation
    spool.rmtree()
  try:
    yield VolumeFiles(workdir)
  finally:
    if spool.exists():
      spool.rmtree()
