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
import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image
from tqdm import tqdm

from synermedgen_jax.core.size import Size, size_text
from synermedgen_jax.evaluation import protocol
from synermedgen_jax.evaluation.official import OFFICIAL
from synermedgen_jax.evaluation.output_files import (
  PICTURES,
  OutputError,
  OutputFile,
  find_outputs,
  with_outputs,
)
from synermedgen_jax.evaluation.plausibility import (
  check_slices,
  check_volume,
  turned,
)
from synermedgen_jax.evaluation.protocol import RouteCase, RoutePair
from synermedgen_jax.evaluation.results import Synthesised
from synermedgen_jax.input.pixels import resize
from synermedgen_jax.interop.image_files import PictureFile
from synermedgen_jax.slices.case import Case
from synermedgen_jax.slices.grids import Grid, resample, to_slices
from synermedgen_jax.slices.store import SliceStore
from synermedgen_jax.slices.volumes import Volume, read_volume
from synermedgen_jax.slices.windows import Window

_GREY_LEVELS = 255
_COVERED = 0.9  # least share of a scored slice's body inside the volume
_ON_GRID_MM = 1e-3

Image2D = Float[np.ndarray, 'h w']
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
    force: accept values and orientations that appear wrong.
    score: official scores to add, keys of `OFFICIAL`.

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
    if unknown := sorted(set(self.score) - OFFICIAL.keys()):
      raise OutputError(
        f'score: unknown {", ".join(unknown)}; expected some of '
        f'{", ".join(OFFICIAL)}.'
      )
    if self.score and (self.slices or self.partial):
      raise OutputError(
        'score: official scores need all slices of a volume; set slices to 0 '
        'and partial to False.'
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
    OfficialError: an official score does not apply.
  """
  pairs = list(
    protocol.route_pairs(cases, slices=settings.slices, routes=settings.routes)
  )
  if not pairs:
    raise OutputError(
      f'{store.path}: no subject of the split has a requested route.'
    )
  protocol.check_official(store, pairs, settings.score)
  outputs = ExternalOutputs(store, pairs, settings)
  scored = protocol.score_outputs(store, outputs.pairs(), outputs.read)
  # No bar appears before a quick refusal.
  bar = tqdm(scored, 'score', len(pairs), unit='volume', delay=0.5)
  synthesis = Synthesised.gather(
    iter(bar), {'synthesiser': settings.name}, official=settings.score
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
      'steps': outputs.steps(),
      'resizing': 'bicubic, anti-aliased',
    },
  )


class ExternalOutputs:
  """Outputs of another program for the slices of a store.

  Refused, with one line that names the file: a missing output; a CT, CBCT or
  PET in another unit, and an MR that is normalised or 8-bit; images that are
  turned or mirrored against the truth; an image of another shape than the
  canvas, or than the box that it was cropped to; a volume without overlap. A
  volume that is shifted is scored where its header puts it.

  Attributes:
    scored: (route, case, slice) of every output that was read.
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
    self._volumes: dict[tuple[str, str], Images] = {}
    self._counts: collections.Counter[str] = collections.Counter()
    self._colour = 0.0
    self.scored: list[tuple[str, str, int]] = []

  @property
  def fingerprint(self) -> str:
    """8 hexadecimal digits, equal if the same slices were scored."""
    text = json.dumps(sorted(self.scored))
    return hashlib.sha256(text.encode()).hexdigest()[:8]

  def steps(self) -> dict[str, Any]:
    """Undone step -> number of files."""
    steps = {
      name: self._counts[name]
      for name in ('volumes', 'resampled', 'slices', 'rgb', 'jpeg', '8-bit')
    }
    return {
      **steps,
      'largest_colour_difference': round(self._colour, 1),  # of 255 levels
      'cropped': self._counts['cropped'],
      'resized': self._counts['resized'],
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
        self._volumes[key] = volume[indices]
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
      OutputError, FormatError: an output is refused.
    """
    route, case = item.route.name, item.case.id
    images = self._volumes.get((route, case))
    if images is not None:
      first = self._files[route, case, None]
    else:
      files = [self._files[route, case, i] for i in item.indices.tolist()]
      images, first = self._read_slices(files, item), files[0]
    if not self._settings.force and (turn := turned(images, item.truth)):
      raise OutputError(
        f'{first.path}: the {item.route.target.label} of {case} appears '
        f'{turn}; correct it, or accept it with --force.'
      )
    return images

  def _read_volume(
    self, file: OutputFile, pair: RoutePair
  ) -> tuple[Images, Bool[np.ndarray, 'z h w']]:
    """All slices of a volume on the grid of its case, and what it covers."""
    case, target = pair.case, pair.route.target
    window = case.modalities[target]
    volume = read_volume(file.path)
    if file.range is None and not self._settings.force:
      check_volume(file.path, target, volume, window)
    volume = Volume(_in_unit(volume.data, file, window), volume.affine)
    depth, height, width = case.shape
    grid = Grid((width, height, depth), np.array(case.affine))
    sampled = to_slices(resample(window.clip(volume), grid, fill=np.nan))
    covered = np.isfinite(sampled)
    if not covered.any():
      raise OutputError(
        f'{file.path}: does not overlap case {case.id} in world coordinates; '
        'write it with the affine of the exported volume.'
      )
    self._counts['volumes'] += 1
    same = volume.data.shape == grid.shape and np.allclose(
      volume.affine, grid.affine, atol=_ON_GRID_MM
    )
    self._counts['resampled'] += not same
    sampled = np.where(covered, sampled, np.float32(window.low))
    return window.normalise(sampled), covered

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

  def _read_slices(
    self, files: Sequence[OutputFile], item: RouteCase
  ) -> Images:
    """The outputs of a pair that are one file per slice, in [-1, 1]."""
    target = item.route.target
    window = item.case.modalities[target]
    unchecked, images = [], []
    for file, source, truth in zip(files, item.source, item.truth, strict=True):
      if file.path.suffix.lower() in PICTURES:
        image = self._read_picture(file)
      else:
        image = _read_array(file.path)
        if image.dtype == np.uint8:
          self._counts['8-bit'] += 1
          levels = file.range or (0.0, float(_GREY_LEVELS))
          file = dataclasses.replace(file, range=levels)
        image = image.astype(np.float32)
        if file.range is None:
          unchecked.append(image)
      self._counts['slices'] += 1
      image = window.normalise(_in_unit(image, file, window))
      box = {'source': source, 'target': truth}.get(file.crop)
      images.append(self._on_canvas(file, self._grey(image), truth.shape, box))
    if unchecked and not self._settings.force:
      check_slices(files[0].path, target, unchecked, item.case)
    return np.stack(images)

  def _read_picture(self, file: OutputFile) -> np.ndarray:
    """A picture in [-1, 1], grey or RGB."""
    picture = PictureFile(file.path, file.where).read()
    with Image.open(file.path) as image:
      self._counts['jpeg'] += image.format == 'JPEG'
      self._counts['8-bit'] += not image.mode.startswith(('I', 'F'))
    return picture

  def _grey(self, image: np.ndarray) -> Image2D:
    """The mean of the channels."""
    if image.ndim == 2:
      return image
    if image.shape[-1] > 1:
      self._counts['rgb'] += 1
      difference = np.ptp(image, axis=-1).max() / 2 * _GREY_LEVELS
      self._colour = max(self._colour, float(difference))
    return image.mean(-1)

  def _on_canvas(
    self,
    file: OutputFile,
    image: Image2D,
    canvas: Size,
    cropped: Float[np.ndarray, 'y x'] | None,
  ) -> Float[np.ndarray, 'y x']:
    """Resizes an image to the canvas, or to the box that it was cropped to.

    Args:
      file: its file, for messages.
      image: the image in [-1, 1].
      canvas: height and width of the slices.
      cropped: the slice whose non-black box the image shows; None = no crop.
    """
    rows, columns = slice(0, canvas[0]), slice(0, canvas[1])
    if cropped is not None:
      rows, columns = _box(cropped)
    size = rows.stop - rows.start, columns.stop - columns.start
    if not _same_aspect(image.shape, size):
      box = f'the box of its {file.crop}' if file.crop else 'the canvas'
      hint = '' if file.crop else '; if it was cropped, name the box by --crop'
      raise OutputError(
        f'{file.path}: has {size_text(image.shape)} pixels, {box} '
        f'{size_text(size)}: another aspect ratio{hint}.'
      )
    self._counts['resized'] += image.shape != size
    image = resize(image, size)
    if size == canvas:
      return image
    self._counts['cropped'] += 1
    padded = np.full(canvas, -1, np.float32)
    padded[rows, columns] = image
    return padded


def _in_unit(
  values: np.ndarray, file: OutputFile, window: Window
) -> np.ndarray:
  """The numbers of a file in the unit of the target."""
  picture = file.path.suffix.lower() in PICTURES
  ends = (-1.0, 1.0) if picture else file.range
  if ends is None:
    return values
  black, white = ends
  low, high = file.window or (window.low, window.high)
  return np.float32(
    low + (values - np.float32(black)) * ((high - low) / (white - black))
  )


def _read_array(path: Path) -> np.ndarray:
  """An NPY file with real numbers, grey or with 1 or 3 channels."""
  try:
    array = np.load(path, allow_pickle=False)
  except (OSError, ValueError, EOFError) as error:
    reason = getattr(error, 'strerror', None) or error
    raise OutputError(f'{path}: cannot be read as NPY ({reason}).') from None
  if array.ndim not in (2, 3) or (
    array.ndim == 3 and array.shape[2] not in (1, 3)
  ):
    raise OutputError(
      f'{path}: has shape {array.shape}, expected (rows, columns), or 1 or 3 '
      'channels after them.'
    )
  if array.dtype.kind not in 'uif' or not np.isfinite(array).all():
    raise OutputError(
      f'{path}: has values of type {array.dtype} that are no finite real '
      'numbers.'
    )
  return array


def _box(image: Image2D) -> tuple[slice, slice]:
  """Rows and columns of the pixels that are not black at 8 bits."""
  visible = np.round((image + 1) / 2 * _GREY_LEVELS) > 0
  if not visible.any():
    visible = np.ones_like(visible)  # a black image has no box to crop to
  return tuple(
    slice(int(line[0]), int(line[-1]) + 1)
    for line in (np.flatnonzero(visible.any(axis)) for axis in (1, 0))
  )


def _same_aspect(shape: Size, size: Size) -> bool:
  """Whether two shapes differ by a scale, to 1 pixel of the coarser one."""
  scale = np.sqrt(np.prod(shape) / np.prod(size))
  difference = np.abs(np.array(shape) - scale * np.array(size)).max()
  return bool(difference <= max(scale, 1))
