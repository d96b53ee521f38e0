"""Intervals of synthesised values, from the spread of several draws.

spread = draw_spread(synthesiser, route, sources, draws=8)
low, high = ends(spread.mean, spread.deviation, factor)

A draw is one synthesis with its own seed, of the noise of the flow and, with a
detail path, of one texture. The deviation of the draws alone covers too little
or too much: `evaluation/uncertainty.py` measures the factor that it has to be
multiplied by. A run keeps it as a `Calibration`.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from etils.epath import Path
from jaxtyping import Float

from synermedgen_jax.config.sampling import SamplingConfig
from synermedgen_jax.core import files
from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.modalities import Modality, Route
from synermedgen_jax.core.progress import Bar
from synermedgen_jax.inference.translation import (
  MR_WINDOW,
  cut,
  on_grid_of,
  target_window,
)
from synermedgen_jax.inference.workdir import Trained
from synermedgen_jax.interop import hub
from synermedgen_jax.slices import grids
from synermedgen_jax.slices.volumes import Volume
from synermedgen_jax.slices.windows import Window

LEVEL = 0.9
OFFERED = (0.85, 0.95)  # coverage of the intervals that `predict` writes
FILE = 'evaluation/uncertainty.json'
VERSION = 1
# Where all draws agree, as in air and beyond the window, the error over the
# deviation would be unlimited, and a few such voxels would decide the factor.
# 0.01 is 0.5 % of the window, 10 HU of a CT: a smaller error matters little.
_FLOOR = 0.01
_COARSER = 1.1  # ratio of volumes of voxels that deserves a warning

Slices = Float[np.ndarray, 'z h w']


class IntervalError(UserError):
  """A run has no interval for what is asked; one line that says why."""


@dataclasses.dataclass(frozen=True)
class Spread:
  """Mean and deviation of the draws of some slices.

  Attributes:
    mean: float32 in [-1, 1].
    deviation: sample deviation (one degree of freedom less than draws) on the
      same scale, to which 0.01 is added in squares; float32.
  """

  mean: Slices
  deviation: Slices


def ends(
  mean: Float[np.ndarray, '*shape'],
  deviation: Float[np.ndarray, '*shape'],
  factor: float,
) -> tuple[Float[np.ndarray, '*shape'], Float[np.ndarray, '*shape']]:
  """Low and high ends of intervals: `factor` deviations from the mean.

  Args:
    mean, deviation: of a `Spread`.
    factor: see `RouteInterval`.

  Returns:
    Values within [-1, 1], the window.
  """
  reach = np.float32(factor) * deviation
  return np.clip(mean - reach, -1, 1), np.clip(mean + reach, -1, 1)


def is_constant(deviation: Float[np.ndarray, ...]) -> bool:
  """Whether all draws of a `Spread` are equal, so that 0.01 alone is left."""
  return bool((deviation <= _FLOOR * 1.001).all())


def draw_spread(
  synthesiser: Any,
  route: Route,
  sources: Float[np.ndarray, 's z h w'],
  draws: int,
  *,
  seed: int = 0,
  progress: Callable[[int], object] | None = None,
) -> Spread:
  """Synthesises slices several times; one draw is in memory at a time.

  Args:
    synthesiser: has `synthesise`, as `inference.volume.Synthesiser`, with
      `sampling.draws` 1.
    route: sources -> target.
    sources: slices of each source in [-1, 1].
    draws: number of draws, at least 2.
    seed: seed of the first draw; the others have the seeds that follow.
    progress: called after each batch with its number of slices, in every draw.

  Raises:
    ValueError: fewer than 2 draws, or a voxel is not finite.
  """
  if draws < 2:
    raise ValueError(f'A deviation needs at least 2 draws, got {draws}.')
  shape = sources.shape[1:]
  mean, squares = np.zeros(shape), np.zeros(shape)  # Welford's recurrence
  for count in range(1, draws + 1):
    drawn = synthesiser.synthesise(
      route, sources, seed=seed + count - 1, progress=progress
    )
    if not np.isfinite(drawn).all():
      raise ValueError('A draw has voxels that are not finite.')
    step = drawn - mean
    mean += step / count
    squares += step * (drawn - mean)
  deviation = np.sqrt(squares / (draws - 1) + _FLOOR**2)
  return Spread(mean.astype(np.float32), deviation.astype(np.float32))


def one_draw(sampling: Any) -> Any:
  """The settings of a single draw; systems of the arena have no others."""
  if isinstance(sampling, SamplingConfig):
    return dataclasses.replace(sampling, draws=1)
  return sampling


@dataclasses.dataclass(frozen=True)
class Interval:
  """The ends of the interval of a synthesised volume.

  Attributes:
    low, high: float32 on the grid of the first source, in the unit of the
      target and within its window. Voxels outside the frame of the body have
      the low end of the window in both.
    voxel: mm along the axes of the slices from which both are resampled.
  """

  low: Volume
  high: Volume
  voxel: tuple[float, float, float]

  @property
  def doubt(self) -> str:
    """A sentence about finer voxels than those of the slices; '' if not.

    A finer image has steeper edges than the images that calibrated.
    """
    if math.prod(self.voxel) <= _COARSER * math.prod(self.low.spacing):
      return ''
    sizes = ' x '.join(f'{side:.3g}' for side in self.voxel)
    return (
      f'The interval holds for voxels of {sizes} mm, those of the slices of '
      'the model; at edges in a finer image it covers less.'
    )


def translate_interval(
  trained: Trained,
  volumes: Mapping[Modality, Volume],
  route: Route,
  factor: float,
  draws: int,
  *,
  sampling: SamplingConfig | None = None,
  mr_window: Window = MR_WINDOW,
  seed: int = 0,
  batch_size: int = 16,
  progress: Callable[[int], object] | None = None,
) -> Interval:
  """Synthesises the ends of the interval of a volume.

  Args:
    factor: of the route, see `Calibration`.
    draws: number of draws of the calibration.
    seed: seed of the first draw.
    trained, volumes, route, sampling, mr_window, batch_size: as of
      `translation.translate`; the number of draws in `sampling` has no effect.
    progress: as of `draw_spread`; None = a progress bar.
  """
  window = target_window(trained, route, mr_window)
  synthesiser = trained.synthesiser(
    one_draw(sampling or trained.sampling), batch_size=batch_size
  )
  grid, slices = cut(trained, volumes)
  sources = np.stack([slices.pop(m) for m in route.sources])
  name, total = f'{route.name}, {draws} draws', draws * sources.shape[1]
  with Bar(name, total, 'slice', shown=not progress) as bar:
    spread = draw_spread(
      synthesiser,
      route,
      sources,
      draws,
      seed=seed,
      progress=progress or bar.update,
    )
  volume = next(iter(volumes.values()))
  low, high = (
    on_grid_of(
      Volume(grids.from_slices(window.denormalise(end)), grid.affine),
      volume,
      window,
    )
    for end in ends(spread.mean, spread.deviation, factor)
  )
  # Beyond the outermost pixels each end is continued by itself: they may cross.
  low, high = (
    Volume(end(low.data, high.data), low.affine)
    for end in (np.minimum, np.maximum)
  )
  voxel = np.linalg.norm(grid.affine[:3, :3], axis=0)
  return Interval(low, high, tuple(voxel.tolist()))


@dataclasses.dataclass(frozen=True)
class RouteInterval:
  """The intervals of one route, as measured; None = not measurable.

  Attributes:
    factor: half-width of the interval over the deviation of the draws, from
      validation subjects.
    coverage: share of voxels of the measured subjects inside the interval.
    by_subject: measured subject -> that share of its voxels.
    width: mean width of the interval, in `unit`.
    unit: unit of the target.
    correlation: Spearman's, of absolute error and deviation.
    sparsification: `removed`, `by_deviation`, `by_error` and `random`, see
      `evaluation.uncertainty.DEFINITION`.
    ause: area between the first two curves.
    reason: why the interval is not offered; '' = it is.
  """

  factor: float | None
  coverage: float | None
  by_subject: Mapping[str, float]
  width: float | None
  unit: str
  correlation: float | None
  sparsification: Mapping[str, Sequence[float]]
  ause: float | None
  reason: str = ''

  @property
  def offered(self) -> bool:
    """Whether `predict` writes it."""
    return not self.reason


@dataclasses.dataclass(frozen=True)
class Calibration:
  """Calibrated intervals of a run, and what they were measured on.

  Attributes:
    routes: route -> its interval.
    level: share of voxels that an interval is meant to cover.
    draws: number of draws.
    sampling: settings of one draw, as plain values.
    steps: step of the checkpoint of each run.
    split: split of the measured subjects.
    slices: slices per case; 0 = all usable ones.
    seed: seed of the first draw.
    store: path of the store.
    fingerprint: of the store.
  """

  routes: Mapping[str, RouteInterval]
  level: float
  draws: int
  sampling: Mapping[str, Any]
  steps: tuple[int, ...]
  split: str
  slices: int
  seed: int
  store: str
  fingerprint: str

  def write(self, workdir: str | Path, definition: Mapping[str, str]) -> None:
    """Writes WORKDIR/evaluation/uncertainty.json.

    Args:
      workdir: of the run.
      definition: number -> its definition.
    """
    values = dataclasses.asdict(self)
    for name, route in self.routes.items():
      values['routes'][name]['offered'] = route.offered
    record = {'version': VERSION, **values, 'definition': dict(definition)}
    files.write_json(Path(workdir) / FILE, record)

  @classmethod
  def read(cls, workdir: str | Path) -> Calibration:
    """Reads what `write` wrote.

    Raises:
      IntervalError: the file is missing or malformed.
    """
    if hub.is_address(workdir):
      raise IntervalError(
        f'{workdir}: an address has no calibrated intervals; download it, and '
        f'measure them with {_command("FOLDER")}.'
      )
    path = Path(workdir) / FILE
    if not path.is_file():
      raise IntervalError(
        f'{path}: no such file, so the run has no calibrated intervals; '
        f'{_command(workdir)} measures them.'
      )
    try:
      record = json.loads(path.read_bytes())
      if record.pop('version') != VERSION:
        raise ValueError('version')
      record.pop('definition')
      record['steps'] = tuple(record['steps'])
      record['routes'] = {
        name: _route_interval(values)
        for name, values in record['routes'].items()
      }
      return cls(**record)
    except (ValueError, KeyError, TypeError, AttributeError):
      raise IntervalError(
        f'{path}: is not a file of calibrated intervals of this version; '
        f'{_command(workdir)} writes it again.'
      ) from None

  def check(
    self,
    workdir: str | Path,
    route: Route,
    steps: Sequence[int],
    sampling: SamplingConfig,
  ) -> None:
    """Refuses an interval that was not measured, or does not hold.

    Args:
      workdir: of the run, for the message.
      route: the requested route.
      steps: step of the checkpoint of each run.
      sampling: the settings of the prediction; its number of draws has no
        effect.

    Raises:
      IntervalError: the calibration is that of another checkpoint or sampling,
        or the route is not offered.
    """
    if tuple(steps) != self.steps:
      raise IntervalError(
        f'{workdir}: {FILE} was measured at step {_join(self.steps)}, and the '
        f'checkpoint is of step {_join(steps)}; {_command(workdir)} measures '
        'again.'
      )
    given = json.loads(json.dumps(dataclasses.asdict(one_draw(sampling))))
    measured = json.loads(json.dumps(self.sampling))
    if other := [k for k in given if given[k] != measured.get(k)]:
      raise IntervalError(
        f'{workdir}: {FILE} was measured with another {", ".join(other)}; '
        f'leave out the flags of sampling, or give them to {_command(workdir)}.'
      )
    interval = self.routes.get(route.name)
    if interval is None:
      raise IntervalError(
        f'{workdir}: {FILE} has no {route.name}, only '
        f'{", ".join(self.routes)}; {_command(workdir)} '
        f'--routes={route.name} measures it.'
      )
    if not interval.offered:
      raise IntervalError(
        f'{workdir}: no interval of {route.name} is offered: '
        f'{interval.reason}. Leave out --intervals.'
      )


def _route_interval(values: dict[str, Any]) -> RouteInterval:
  """Raises ValueError or KeyError if an offered interval has a wrong number."""
  offered = values.pop('offered')
  interval = RouteInterval(**values)
  if offered != interval.offered:
    raise ValueError('offered')
  if interval.offered:
    for number in (interval.factor, interval.coverage):
      if not (math.isfinite(number) and number > 0):
        raise ValueError(f'{number}')
  return interval


def _command(workdir: str | Path) -> str:
  return f'python -m synermedgen_jax.evaluate --workdir={workdir} --intervals'


def _join(steps: Sequence[int]) -> str:
  return ', '.join(map(str, steps)) or 'none'
