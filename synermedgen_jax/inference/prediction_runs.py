"""The runs of a prediction: settings, checks, loading, records."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from synermedgen_jax.checkpoint.model import newest_step
from synermedgen_jax.checkpoint.weights_folder import holds_weights
from synermedgen_jax.config.modules import check_imported
from synermedgen_jax.config.sampling import SamplingConfig
from synermedgen_jax.core.modalities import Modality, Route
from synermedgen_jax.inference import sidecar
from synermedgen_jax.inference.intervals import Calibration, IntervalError
from synermedgen_jax.inference.prediction import Predictor, Run
from synermedgen_jax.inference.prediction_inputs import Request
from synermedgen_jax.inference.trained_system import load_system
from synermedgen_jax.inference.translation import (
  MR_WINDOW,
  check_route,
  check_windows,
  target_window,
)
from synermedgen_jax.inference.workdir import RunRecord, Trained, WorkdirError
from synermedgen_jax.slices.windows import Window

# The settings of a run's sampling -> those to use.
Override = Callable[[SamplingConfig], SamplingConfig]


@dataclasses.dataclass(frozen=True)
class PredictSettings:
  """Settings of a prediction.

  Attributes:
    workdirs: runs whose results are averaged.
    stages: stages that train synthesis.
    sampling: changes the sampling of each run.
    refuse_sampling: called with a reason, if a run samples as it was trained.
    mr_window: values of black and white in an MR target.
    seed: random seed of the noise.
    batch_size: slices per batch.
    force: accept untrained routes, values in another unit, and sources that
      show another family of modalities.
    read: read the sources and the results.
    overwrite: predict again what is finished.
    intervals: write the calibrated interval of each volume.
  """

  workdirs: Sequence[str]
  stages: Collection[str]
  sampling: Override = lambda sampling: sampling
  refuse_sampling: Callable[[str], None] = lambda why: None
  mr_window: Window = MR_WINDOW
  seed: int = 0
  batch_size: int = 16
  force: bool = False
  read: bool = True
  overwrite: bool = False
  intervals: bool = False


@dataclasses.dataclass(frozen=True)
class Runs:
  """The runs of a prediction, loaded at the first use.

  Attributes:
    settings: workdirs, sampling, checks.
  """

  settings: PredictSettings

  @functools.cached_property
  def systems(self) -> dict[str, Run | None]:
    """Workdir -> its system of the arena; None = it has a model."""
    return {w: load_system(w) for w in self.settings.workdirs}

  @functools.cached_property
  def calibration(self) -> Calibration | None:
    """The intervals of the only run; None = not requested."""
    if not self.settings.intervals:
      return None
    workdirs = self.settings.workdirs
    if len(workdirs) > 1:
      raise IntervalError(
        f'--intervals: are calibrated for one run, and {len(workdirs)} are '
        'averaged; leave it out, or name one.'
      )
    return Calibration.read(workdirs[0])

  @functools.cached_property
  def predictor(self) -> Predictor:
    """The loaded runs.

    Raises:
      WorkdirError, CheckpointError: a run cannot be loaded.
    """
    runs = [system or Trained.load(w) for w, system in self.systems.items()]
    return Predictor(
      runs,
      [self._sampling(run) for run in runs],
      mr_window=self.settings.mr_window,
      seed=self.settings.seed,
      batch_size=self.settings.batch_size,
      force=self.settings.force,
      read=self.settings.read,
      calibration=self.calibration,
    )

  def _sampling(self, run: Run) -> SamplingConfig | None:
    if isinstance(run, Trained):
      return self.settings.sampling(run.sampling)
    return None

  def check(self, workdir: str, route: Route) -> None:
    """Refuses a run that does not synthesise the route, or not as asked.

    Also refuses runs with several windows of the target.
    """
    system = self.systems[workdir]
    if system:
      _check_system(workdir, system, route)
      why = f'{system.title} samples as it was trained'
      self.settings.refuse_sampling(why)
      if self.settings.intervals:
        raise IntervalError(
          f'--intervals: {workdir} is a {system.title}, and intervals are '
          'those of SynerMedGen; leave it out.'
        )
    else:
      record = _check_run(workdir, route, self.settings)
      if self.calibration:
        sampling = SamplingConfig.from_config(record.config)
        steps = _steps(workdir, record)
        self.calibration.check(
          workdir, route, steps, self.settings.sampling(sampling)
        )
    check_windows(
      {w: (s or RunRecord.load(w)).slices for w, s in self.systems.items()},
      route.target,
    )

  def routes(self, workdir: str) -> tuple[str, ...] | None:
    """Names of the routes that a run was trained on; None = not known.

    Raises:
      WorkdirError: it does not synthesise.
    """
    system = self.systems[workdir]
    if system:
      return system.routes
    return _record_of(workdir, self.settings).routes

  def record(
    self, request: Request, names: Mapping[Modality, Path] | None = None
  ) -> dict[str, Any]:
    """The part of a sidecar that states what is asked for.

    Args:
      request: the request.
      names: source -> its file as the record names it; None = its path.
    """
    predictor, route = self.predictor, request.route
    intervals = self.calibration and sidecar.interval_record(
      self.calibration, route, request.output
    )
    return sidecar.request_record(
      route,
      request.files,
      request.series,
      [
        {
          'Workdir': str(workdir),
          'Steps': list(run.steps),
          'Stamp': _weights_stamp(Path(workdir)),
        }
        for workdir, run in zip(
          self.settings.workdirs, predictor.runs, strict=True
        )
      ],
      [s and dataclasses.asdict(s) for s in predictor.samplings],
      seed=self.settings.seed,
      window=target_window(predictor.runs[0], route, predictor.mr_window),
      intervals=intervals,
      read=self.settings.read,
      names=names,
    )


def _weights_stamp(workdir: Path) -> int:
  """Time of the newest checkpoint or weights in ns; 0 = none is local.

  A run that is trained again to the same step has another one.
  """
  weights = [*workdir.glob('**/checkpoints/*'), *workdir.glob('*.safetensors')]
  return max((path.stat().st_mtime_ns for path in weights), default=0)


def _check_system(workdir: str, system: Run, route: Route) -> None:
  """Refuses a route that a system was not trained on; --force cannot help."""
  if route.name not in system.routes:
    raise WorkdirError(
      f'{workdir}: {system.title} was not trained on {route.name}, only '
      f'on {", ".join(system.routes)}.'
    )


def _check_run(
  workdir: str, route: Route, settings: PredictSettings
) -> RunRecord:
  """The record of a run; refuses one that does not synthesise the route."""
  record = _record_of(workdir, settings)
  if record.routes is None:
    print(
      f'{workdir}: the routes on which it was trained are not known, so '
      f'{route.name} is not checked.',
      file=sys.stderr,
    )
  elif not settings.force:
    check_route(record.routes, route, workdir)
  return record


def _record_of(workdir: str, settings: PredictSettings) -> RunRecord:
  """The record of a run; refuses one that does not synthesise."""
  record = RunRecord.load(workdir)
  check_imported(record.config.get('modules', ()), workdir)
  if record.config['stage'] not in settings.stages:
    raise WorkdirError(
      f'{workdir}: stage {record.config["stage"]} does not train '
      'synthesis; give the workdir of Stage II or of joint training.'
    )
  return record


def _steps(workdir: str, record: RunRecord) -> tuple[int, ...]:
  """Those of `Trained.load`, without the parameters."""
  if holds_weights(workdir):
    return () if record.step is None else (record.step,)
  return (newest_step(Path(workdir) / 'checkpoints'),)
