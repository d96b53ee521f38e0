"""Scores outputs that another program made for the slices of a store.

Every reversible step between the output and the slices of the store is undone
and counted: colour, a crop, another size, 8-bit levels, another grid. Images
that cannot be what they are named are refused: see `ExternalOutputs`.

    store = SliceStore.open('runs/store')
    scored = score(store, store.split('test'), ScoreSettings('healthgpt/out'))
    scored.synthesis.scores['synthesis']['brain_mr_to_ct']['ssim']
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from synermedgen_jax.core import progress
from synermedgen_jax.evaluation import protocol
from synermedgen_jax.evaluation.output_files import (
  OutputError,
  OutputFile,
  find_outputs,
  with_outputs,
)
from synermedgen_jax.evaluation.output_slices import (
  in_unit,
  place,
  read_slice,
)
from synermedgen_jax.evaluation.plausibility import (
  ON_GRID_MM,
  check_origin,
  check_resized,
  check_scale,
  check_slices,
  check_turn,
)
from synermedgen_jax.evaluation.protocol import RouteCase, RoutePair
from synermedgen_jax.evaluation.results import Synthesised
from synermedgen_jax.evaluation.volume_scores import VOLUME_SCORES
from synermedgen_jax.slices.case import Case
from synermedgen_jax.slices.grids import Grid, resample, to_slices
from synermedgen_jax.slices.store import SliceStore
from synermedgen_jax.slices.units import check_units
from synermedgen_jax.slices.volumes import Volume, VolumeError, read_volume

_COVERED = 0.9  # least share of a scored slice's body inside the volume

Images = Float[np.ndarray, 'z h w']


@dataclasses.dataclass(frozen=True)
class ScoreSettings:
  """Settings of `score`.

  Attributes:
    outputs: a folder with exported names, or a table; see `output_files`.
    name: name of the system in the results.
    routes: names of the scored routes; empty = all.
    slices: slices per case, evenly spaced; 0 = all usable ones.
    crop: 'source' or 'target': box to which images were cropped; '' = none.
    partial: score the slices that have an output, instead of refusing.
    force: accept values, orientations and places that appear wrong.
    score: scores of volumes to add, keys of `VOLUME_SCORES`.

  Raises:
    OutputError: `score` has an unknown name, or not all slices are scored.
  """

  outputs: str | Path
  name: str = 'external'
  routes: tuple[str, ...] = ()
  slices: int = 0
  crop: str = ''
  partial: bool = False
  force: bool = False
  score: tuple[str, ...] = ()

  def __post_init__(self):
    if unknown := sorted(set(self.score) - VOLUME_SCORES.keys()):
      raise OutputError(
        f'score: unknown {", ".join(unknown)}; expected some of '
        f'{", ".join(VOLUME_SCORES)}.'
      )
    if self.score and (self.slices or self.partial):
      raise OutputError(
        'score: scores of volumes need all slices; set slices to 0 and '
        'partial to False.'
      )


@dataclasses.dataclass(frozen=True)
class Scored:
  """Results of `score`.

  Attributes:
    synthesis: the scores of the system and of the baselines without a model.
    slices: `slices` of subjects.json. A partial score names its slices by a
      checksum, so that `compare` accepts no others beside it.
    record: what was read, and how many files each undone step concerns.
  """

  synthesis: Synthesised
  slices: int | str
  record: dict[str, Any]


def score(
  store: SliceStore, cases: Sequence[Case], settings: ScoreSettings
) -> Scored:
  """Reads the outputs for all pairs and scores them as `evaluate` does.

  Args:
    store: the store whose slices were exported.
    cases: the cases to score.
    settings: what to read, and how.

  Raises:
    OutputError, VolumeError, FormatError: an output is missing or refused.
    VolumeScoreError: a score of volumes does not apply.
  """
  pairs = list(
    protocol.route_pairs(cases, slices=settings.slices, routes=settings.routes)
  )
  if not pairs:
    raise OutputError(
      f'{store.path}: no subject of the split has a requested route.'
    )
  protocol.check_volume_scores(store, pairs, settings.score)
  outputs = ExternalOutputs(store, pairs, settings)
  scored = protocol.score_outputs(store, outputs.pairs(), outputs.read)
  # No bar appears before a quick refusal.
  scored = progress.each(scored, 'score', len(pairs), 'volume', delay=0.5)
  synthesis = Synthesised.gather(
    scored, {'synthesiser': settings.name}, volume_scores=settings.score
  )
  total = sum(len(pair.indices) for pair in pairs)
  slices = settings.slices
  if len(outputs.scored) < total:
    slices = f'{len(outputs.scored)} of {total}, {outputs.fingerprint}'
  return Scored(
    synthesis,
    slices,
    {
      'name': settings.name,
      'path': str(settings.outputs),
      'slices': len(outputs.scored),
      'of': total,
      'force': settings.force,
      'crop': ', '.join(sorted(outputs.boxes)),
      'steps': outputs.steps(),
      'resizing': 'bicubic, anti-aliased',
    },
  )


@dataclasses.dataclass(frozen=True)
class _Output:
  """The slices of a pair on the canvas of the store.

  Attributes:
    images: the slices in [-1, 1].
    values: the same in the unit of the target, not clipped; NaN outside a
      volume.
  """

  images: Images
  values: Images


class ExternalOutputs:
  """Outputs of another program for the slices of a store.

  Refused, with one line that names the file: a missing output; values in
  another unit or on another scale than the truth; images that are turned or
  mirrored against the truth, or were cropped or padded; an image of another
  shape than the canvas, or than the box that it was cropped to; a colour map;
  transparent pixels; a volume without overlap. A volume that is shifted is
  scored where its header puts it.

  Attributes:
    scored: (route, case, slice) of every output that was read.
    boxes: 'source' and 'target', where a crop to that box was undone.
  """

  def __init__(
    self, store: SliceStore, pairs: Sequence[RoutePair], settings: ScoreSettings
  ):
    """Finds the files; raises OutputError if some are missing."""
    path = Path(settings.outputs)
    self._store = store
    self._settings = settings
    self._files = find_outputs(
      path, pairs, {case.id for case in store.cases}, settings.crop
    )
    self._pairs = with_outputs(
      path, pairs, self._files, partial=settings.partial
    )
    self._volumes: dict[tuple[str, str], _Output] = {}
    self._counts: collections.Counter[str] = collections.Counter()
    self._colour = 0.0
    self.scored: list[tuple[str, str, int]] = []
    self.boxes: set[str] = set()

  @property
  def fingerprint(self) -> str:
    """8 hexadecimal digits, equal if the same slices were scored."""
    text = json.dumps(sorted(self.scored))
    return hashlib.sha256(text.encode()).hexdigest()[:8]

  def steps(self) -> dict[str, Any]:
    """Undone step -> number of files; `forced`: overridden refusals."""
    steps = {
      name: self._counts[name]
      for name in ('volumes', 'resampled', 'slices', 'rgb', 'jpeg', '8-bit')
    }
    return {
      **steps,
      'largest_colour_difference': round(self._colour, 1),  # of 255 levels
      'cropped': self._counts['cropped'],
      'resized': self._counts['resized'],
      'forced': self._counts['forced'],
    }

  def pairs(self) -> Iterator[RoutePair]:
    """Yields the pairs with the slices that `read` can read, in order."""
    for pair in self._pairs:
      key = pair.route.name, pair.case.id
      kept = pair
      if file := self._files.get((*key, None)):
        volume, covered = self._read_volume(file, pair)
        indices = self._covered_indices(file, pair, covered)
        kept = dataclasses.replace(pair, indices=indices)
        self._volumes[key] = _Output(
          volume.images[indices], volume.values[indices]
        )
      if len(kept.indices):
        self.scored += [(*key, i) for i in kept.indices.tolist()]
        yield kept
      self._volumes.pop(key, None)
    if not self.scored:
      raise OutputError(
        f'{self._settings.outputs}: no volume covers the body of a slice.'
      )

  def read(self, item: RouteCase) -> Images:
    """The outputs of a pair, in [-1, 1], on the canvas of the store.

    Raises:
      OutputError, VolumeError, FormatError: an output is refused.
    """
    key = item.route.name, item.case.id
    volume = self._files.get((*key, None))
    files = [volume or self._files[*key, i] for i in item.indices.tolist()]
    output = self._volumes.get(key) or self._read_slices(files, item)
    window = item.case.modalities[item.route.target]
    # No file has values beyond the window that it states.
    truth = np.stack(
      [
        np.clip(image, *(file.window or (window.low, window.high)))
        for file, image in zip(
          files, window.denormalise(item.truth), strict=True
        )
      ]
    )
    body = item.mask & np.isfinite(output.values)
    path, what = files[0].path, f'{item.route.target.label} of {item.case.id}'
    with self._plausible():
      check_scale(path, what, output.values[body], truth[body])
    with self._plausible():
      check_turn(path, what, output.images, item.truth)
    return output.images

  @contextlib.contextmanager
  def _plausible(self) -> Iterator[None]:
    """Counts a refusal instead of raising it, if the settings accept it."""
    try:
      yield
    except (OutputError, VolumeError):
      if not self._settings.force:
        raise
      self._counts['forced'] += 1

  def _read_volume(
    self, file: OutputFile, pair: RoutePair
  ) -> tuple[_Output, Bool[np.ndarray, 'z h w']]:
    """All slices of a volume on the grid of its case, and what it covers."""
    case, target = pair.case, pair.route.target
    window = case.modalities[target]
    volume = read_volume(file.path)
    if file.range is None:
      with self._plausible():
        check_units(file.path, target, volume, override='--force')
    data = in_unit(volume.data, file.range, file.window, window)
    volume = Volume(data, volume.affine)
    depth, height, width = case.shape
    grid = Grid((width, height, depth), np.array(case.affine))
    same_affine = np.allclose(volume.affine, grid.affine, atol=ON_GRID_MM)
    same_shape = data.shape == grid.shape
    if same_affine and not same_shape:
      truth = self._store.read_volume(case.id, target)
      with self._plausible():
        images = to_slices(window.normalise(data))
        check_origin(file.path, images, truth)
    sampled, values = (
      to_slices(resample(v, grid, fill=np.nan))
      for v in (window.clip(volume), volume)
    )
    covered = np.isfinite(sampled)
    if not covered.any():
      raise OutputError(
        f'{file.path}: does not overlap case {case.id} in world coordinates; '
        'write it with the affine of the exported volume.'
      )
    self._counts['volumes'] += 1
    self._counts['resampled'] += not (same_affine and same_shape)
    sampled = np.where(covered, sampled, np.float32(window.low))
    return _Output(window.normalise(sampled), values), covered

  def _covered_indices(
    self,
    file: OutputFile,
    pair: RoutePair,
    covered: Bool[np.ndarray, 'z h w'],
  ) -> np.ndarray:
    """The indices of a pair whose body is inside the volume."""
    body = self._store.read_mask(pair.case.id)[pair.indices]
    inside = (body & covered[pair.indices]).sum((1, 2))
    enough = inside >= _COVERED * body.sum((1, 2))
    if not enough.all() and not self._settings.partial:
      raise OutputError(
        f'{file.path}: covers less than {_COVERED:.0%} of the body in slice '
        f'{pair.indices[~enough][0]} of case {pair.case.id}, and in '
        f'{(~enough).sum()} of {len(enough)} slices; write whole volumes, or '
        'score the others with --partial.'
      )
    return pair.indices[enough]

  def _shown(self, file: OutputFile, item: RouteCase) -> Images | None:
    """The slices whose box a file was cropped to."""
    if file.crop == 'source' and len(item.sources) > 1:
      raise OutputError(
        f'{file.path}: was cropped to the box of the source, and '
        f'{item.route.name} has {len(item.sources)}; write whole slices.'
      )
    boxes = {'source': item.sources[0], 'target': item.truth}
    return boxes.get(file.crop)

  def _read_slices(
    self, files: Sequence[OutputFile], item: RouteCase
  ) -> _Output:
    """The outputs of a pair that are one file per slice."""
    target = item.route.target
    window = item.case.modalities[target]
    numbers, images, values = [], [], []
    other = []  # (file, image, slice number) of images of another size
    for n, file in enumerate(files):
      read = read_slice(file, window)
      self._counts.update(['slices', *read.steps])
      self._colour = max(self._colour, read.colour)
      if read.in_unit:
        numbers.append(read.values)
      shown = self._shown(file, item)
      at = item.truth[n].shape, None if shown is None else shown[n]
      image = window.normalise(read.values)
      placed, resized = place(file, image, *at)
      images.append(placed)
      # `check_scale` compares values beyond the window, too.
      wide, _ = place(file, window.relative(read.values), *at)
      values.append(window.denormalise(wide))
      self._counts['resized'] += resized
      if file.crop:
        self.boxes.add(file.crop)
        self._counts['cropped'] += 1
      elif resized:
        other.append((file.path, image, n))
    if numbers:
      with self._plausible():
        check_slices(files[0].path, target, numbers, item.case)
    if other:
      paths, written, rows = zip(*other, strict=True)
      rows = list(rows)
      with self._plausible():
        check_resized(
          paths[0], written, np.stack(images)[rows], item.truth[rows]
        )
    return _Output(np.stack(images), np.stack(values))
