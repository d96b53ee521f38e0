"""Synthesises a volume and checks it: reads the sources first, then the result.

predictor = Predictor([Trained.load('runs/demo/detail')])
prediction = predictor.predict({Modality.MR: mr}, route)
prediction.volume, prediction.findings.warnings

A source that shows another family of modalities than stated is refused. All
other doubts are warnings.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from synermedgen_jax.config.sampling import SamplingConfig
from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.modalities import Modality, Route
from synermedgen_jax.inference.asking import Answers, ask_about_pair
from synermedgen_jax.inference.intervals import (
  Calibration,
  Interval,
  translate_interval,
)
from synermedgen_jax.inference.reading import (
  Doubt,
  Reading,
  read_modality,
  read_slices,
)
from synermedgen_jax.inference.trained_system import (
  TrainedPairs,
  TrainedSystem,
)
from synermedgen_jax.inference.translation import (
  MR_WINDOW,
  OVERRIDE,
  check_windows,
  cut,
  target_window,
  translate,
)
from synermedgen_jax.inference.workdir import Trained
from synermedgen_jax.slices.alignment import Offset, estimate_offset
from synermedgen_jax.slices.tissue_values import implausible
from synermedgen_jax.slices.volumes import Volume
from synermedgen_jax.slices.windows import Window

Run = Trained | TrainedSystem | TrainedPairs
_MOST_OFFSET = 6.0  # mm, as in `prepare`


class ReadingError(UserError):
  """A source that shows another family than stated; one line naming it."""


@dataclasses.dataclass(frozen=True)
class Findings:
  """Checks of the sources and of the synthesised volume.

  Attributes:
    sources: source -> what the model reads in it; empty = not read.
    output: what the model reads in the result; None = not read.
    answers: task -> answers about the first source and the result; empty = not
      asked.
    offset: shift of the result from the first source, estimated by mutual
      information; None = not estimated, or the volumes do not overlap.
    warnings: one line for each doubt.
  """

  sources: Mapping[Modality, Reading] = dataclasses.field(default_factory=dict)
  output: Reading | None = None
  answers: Mapping[str, Answers] = dataclasses.field(default_factory=dict)
  offset: Offset | None = None
  warnings: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Prediction:
  """A synthesised volume.

  Attributes:
    volume: float32 on the grid of the first source, in the unit of the target.
    window: values of black and white.
    findings: checks of the sources and of the volume.
    interval: low and high end of the values; None = not asked.
  """

  volume: Volume
  window: Window
  findings: Findings
  interval: Interval | None = None


@dataclasses.dataclass(frozen=True)
class Predictor:
  """Trained runs, held in memory for any number of volumes.

  Attributes:
    runs: their results are averaged, such as those of runs of three planes;
      all have one window of the target.
    samplings: timesteps and guidance of each run; None = those of its config.
      Empty = None for all.
    mr_window: values of black and white in an MR target.
    seed: random seed of the noise and of the questions.
    batch_size: slices per batch.
    force: accept sources that show another family than stated.
    read: read sources and result, if the first run is a model that answers.
    calibration: of the only run, a model; None = no interval.
  """

  runs: Sequence[Run]
  samplings: Sequence[SamplingConfig | None] = ()
  mr_window: Window = MR_WINDOW
  seed: int = 0
  batch_size: int = 16
  force: bool = False
  read: bool = True
  calibration: Calibration | None = None

  def predict(
    self,
    volumes: Mapping[Modality, Volume],
    route: Route,
    *,
    names: Mapping[Modality, str | Path] | None = None,
    progress: Callable[[int], object] | None = None,
  ) -> Prediction:
    """Reads the sources, synthesises the target, and checks it.

    The values' units and the trained routes are the caller's to check, by
    `units.check_units` and `translation.check_route`.

    Args:
      volumes: source -> its volume, all on one grid.
      route: sources and target.
      names: source -> its file, for messages.
      progress: called with the number of slices that are finished, also in each
        draw of an interval; None = a progress bar.

    Raises:
      ReadingError: a source shows another family, and not `force`.
      VolumeError, UserError: as `translate`.
      UserError: the runs have several windows of the target.
    """
    slices = {f'run {i}': r.slices for i, r in enumerate(self.runs, 1)}
    check_windows(slices, route.target)
    names = names or {m: f'the {m.label} volume' for m in volumes}
    readings, warnings = self.read_sources(volumes, names)
    total = 0.0
    samplings = self.samplings or [None] * len(self.runs)
    for run, sampling in zip(self.runs, samplings, strict=True):
      synthetic = translate(
        run,
        volumes,
        route,
        sampling=sampling,
        mr_window=self.mr_window,
        seed=self.seed,
        batch_size=self.batch_size,
        force=True,  # the caller's to check
        progress=progress,
      )
      total += synthetic.data / np.float32(len(self.runs))
    result = Volume(total, synthetic.affine)
    findings = self._check(volumes, route, result)
    interval = self._interval(volumes, route, progress)
    if interval and interval.doubt:
      warnings.append(interval.doubt)
    return Prediction(
      result,
      target_window(self.runs[0], route, self.mr_window),
      dataclasses.replace(
        findings,
        sources=readings,
        warnings=(*warnings, *findings.warnings),
      ),
      interval,
    )

  def _interval(
    self,
    volumes: Mapping[Modality, Volume],
    route: Route,
    progress: Callable[[int], object] | None,
  ) -> Interval | None:
    if self.calibration is None:
      return None
    (run,) = self.runs
    (sampling,) = self.samplings or (None,)
    return translate_interval(
      run,
      volumes,
      route,
      self.calibration.routes[route.name].factor,
      self.calibration.draws,
      sampling=sampling,
      mr_window=self.mr_window,
      seed=self.seed,
      batch_size=self.batch_size,
      progress=progress,
    )

  @property
  def _reader(self) -> Trained | None:
    """The model that reads."""
    first = self.runs[0]
    return first if self.read and isinstance(first, Trained) else None

  def read_sources(
    self,
    volumes: Mapping[Modality, Volume],
    names: Mapping[Modality, str | Path],
  ) -> tuple[dict[Modality, Reading], list[str]]:
    """What the model reads in each source, and warnings.

    Raises:
      ReadingError: a source shows another family, and not `force`.
    """
    readings, warnings = {}, []
    if self._reader is None:
      return readings, warnings
    for modality, volume in volumes.items():
      reading = read_modality(self._reader, volume, modality, seed=self.seed)
      readings[modality] = reading
      doubt = reading.doubt(modality)
      text = (
        f'{names[modality]}: stated as {modality.label}, but the model reads '
        f'{reading}'
      )
      if doubt is Doubt.OTHER_FAMILY and not self.force:
        raise ReadingError(
          f'{text}. Name its modality with --source, or translate it anyway '
          f'with {OVERRIDE}.'
        )
      if doubt is not Doubt.NONE:
        warnings.append(f'{text}.')
    return readings, warnings

  def _check(
    self, volumes: Mapping[Modality, Volume], route: Route, result: Volume
  ) -> Findings:
    """Checks of the result; the sources are not read again."""
    first, source = next(iter(volumes.items()))
    if result.data.min() == result.data.max():
      line = f'The synthetic {route.target.label} has one value everywhere.'
      return Findings(warnings=(line,))
    run, warnings = self.runs[0], []
    _, slices = cut(run, {first: source, route.target: result})
    window = run.slices.window(route.target, result.data)
    warnings += [
      f'The synthetic {route.target.label}: {sign}'
      for sign in implausible(
        window.denormalise(slices[route.target]), route.target, route.region
      )
    ]
    offset = estimate_offset(
      source, result, (run.slices.window(first, source.data), window)
    )
    if offset is not None and offset.distance > _MOST_OFFSET:
      warnings.append(
        f'The synthetic {route.target.label} appears to be '
        f'{offset.relative_to(f"the {first.label}")}.'
      )
    if self._reader is None:
      return Findings(offset=offset, warnings=tuple(warnings))
    output = read_slices(
      self._reader, slices[route.target], route.target, seed=self.seed
    )
    if output.doubt(route.target) is not Doubt.NONE:
      warnings.append(
        f'The synthetic {route.target.label} does not look like one: the '
        f'model reads {output}.'
      )
    answers = ask_about_pair(
      self._reader,
      dataclasses.replace(route, sources=(first,)),
      slices[first],
      slices[route.target],
      tasks=('cts', 'tia'),
      seed=self.seed,
    )
    return Findings(
      output=output, answers=answers, offset=offset, warnings=tuple(warnings)
    )
