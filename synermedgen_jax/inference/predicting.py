"""Predicts all requested volumes with one loaded model, and writes them."""

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
from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.modalities import Modality, Route
from synermedgen_jax.inference import sidecar
from synermedgen_jax.inference.intervals import Calibration, IntervalError
from synermedgen_jax.inference.prediction import Prediction, Predictor, Run
from synermedgen_jax.inference.prediction_inputs import Request, Requests
from synermedgen_jax.inference.trained_system import load_system
from synermedgen_jax.inference.translation import (
  MR_WINDOW,
  OVERRIDE,
  check_route,
  check_sources,
  target_window,
)
from synermedgen_jax.inference.workdir import RunRecord, Trained, WorkdirError
from synermedgen_jax.slices.units import check_units
from synermedgen_jax.slices.volumes import (
  Volume,
  check_writable,
  read_volume,
  write_volume,
)
from synermedgen_jax.slices.windows import Window

# The settings of a run's sampling -> those to use.
Override = Callable[[SamplingConfig], SamplingConfig]


class PredictionError(UserError):
  """Some of several volumes could not be predicted; one line names them."""


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
class Written:
  """A volume that was predicted and written.

  Attributes:
    request: the request.
    sources: source -> its volume.
    prediction: the result.
  """

  request: Request
  sources: Mapping[Modality, Volume]
  prediction: Prediction


def predict_all(
  requests: Requests,
  settings: PredictSettings,
  *,
  after: Callable[[Written], None] = lambda written: None,
) -> None:
  """Predicts, checks and writes every requested volume.

  A volume of several that cannot be predicted is reported, and the others are
  predicted. Volumes that are finished with the same settings are kept.

  Args:
    requests: the volumes.
    settings: runs, sampling, checks.
    after: called after each volume is written.

  Raises:
    PredictionError: some of several volumes failed.
    IntervalError: a run has no interval of a route.
    UserError: a run cannot be used, or the only volume failed.
  """
  runs = Runs(settings)
  for route in dict.fromkeys(r.route for r in requests.requests):
    for workdir in settings.workdirs:
      runs.check(workdir, route)
  if requests.single:
    (request,) = requests.requests
    _check_output(request, settings)
    sources = _read(request, settings)  # before the model is loaded
    _report(predict_request(request, sources, runs), runs, after)
    return
  for line in requests.skipped:
    print(f'Skipped {line}', file=sys.stderr)
  _predict_several(requests, runs, after)


def _predict_several(
  requests: Requests,
  runs: Runs,
  after: Callable[[Written], None],
) -> None:
  settings, failed, kept = runs.settings, [], 0
  count = len(requests.requests)
  for i, request in enumerate(requests.requests, 1):
    try:
      _check_output(request, settings)
      record = runs.record(request)
      if not settings.overwrite and sidecar.is_finished(request.output, record):
        kept += 1
        continue
      print(f'{i} of {count}: {request.name}', flush=True)
      sources = _read(request, settings)
      _report(predict_request(request, sources, runs), runs, after)
    except UserError as error:
      failed.append(request.name)
      print(f'{request.name}: {error}', file=sys.stderr, flush=True)
  if kept:
    print(
      f'{kept} of {count} volumes are finished with these settings and are '
      'kept; --overwrite predicts them again.'
    )
  if failed:
    raise PredictionError(
      f'{len(failed)} of {count} volumes are not predicted: '
      f'{", ".join(failed)}; the lines above give the reasons.'
    )


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
    """Of the only run; None = no intervals are asked for."""
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
    """Refuses a run that does not synthesise the route, or not as asked."""
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

  def routes(self, workdir: str) -> tuple[str, ...] | None:
    """Names of the routes that a run was trained on; None = not known.

    Raises:
      WorkdirError: it does not synthesise.
    """
    system = self.systems[workdir]
    if system:
      return system.routes
    return _record_of(workdir, self.settings).routes

  def record(self, request: Request) -> dict[str, Any]:
    """What the sidecar states about the request."""
    predictor, route = self.predictor, request.route
    intervals = self.calibration and sidecar.interval_record(
      self.calibration, route, request.output
    )
    return sidecar.request_record(
      route,
      request.files,
      request.series,
      [
        {'Workdir': str(workdir), 'Steps': list(run.steps)}
        for workdir, run in zip(
          self.settings.workdirs, predictor.runs, strict=True
        )
      ],
      [s and dataclasses.asdict(s) for s in predictor.samplings],
      seed=self.settings.seed,
      window=target_window(predictor.runs[0], route, predictor.mr_window),
      intervals=intervals,
    )


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


def _check_output(request: Request, settings: PredictSettings) -> None:
  files, outputs = list(request.files.values()), [request.output]
  if settings.intervals:
    outputs += sidecar.interval_paths(request.output)
  for output in outputs:
    check_writable(output, like=files[0], inputs=files)


def _read(
  request: Request, settings: PredictSettings
) -> dict[Modality, Volume]:
  """The sources, whose units and grids are checked."""
  volumes = {}
  for modality, path in request.files.items():
    series = request.series.get(modality, '')
    volumes[modality] = read_volume(path, series=series)
    if not settings.force:
      check_units(path, modality, volumes[modality], override=OVERRIDE)
  check_sources(volumes, request.route, request.files)
  return volumes


def predict_request(
  request: Request,
  sources: Mapping[Modality, Volume],
  runs: Runs,
  *,
  names: Mapping[Modality, Path] | None = None,
  progress: Callable[[int], object] | None = None,
) -> Written:
  """Predicts and writes one volume, then its record.

  Args:
    request: route, files and output.
    sources: source -> its volume, which has been checked.
    runs: the runs.
    names: source -> its file as warnings and record name it; None = its path.
    progress: as of `Predictor.predict`.

  Raises:
    UserError: as `Predictor.predict` and `write_volume`.
  """
  route, output, names = request.route, request.output, names or request.files
  prediction = runs.predictor.predict(
    sources, route, names=names, progress=progress
  )
  sidecar.remove_record(output)
  volumes = {output: prediction.volume}
  if prediction.interval:
    ends = prediction.interval.low, prediction.interval.high
    volumes |= zip(sidecar.interval_paths(output), ends, strict=True)
  for path, volume in volumes.items():
    write_volume(
      path,
      volume,
      like=next(iter(request.files.values())),
      integers=route.target.unit == 'HU',
      description=sidecar.header_text(route),
    )
  record = runs.record(dataclasses.replace(request, files=names))
  sidecar.write_sidecar(output, record, prediction.findings)
  return Written(request, sources, prediction)


def _report(
  written: Written, runs: Runs, after: Callable[[Written], None]
) -> None:
  """Prints the warnings and the output, then calls `after`."""
  prediction = written.prediction
  for warning in prediction.findings.warnings:
    print(f'Warning: {warning}', file=sys.stderr)
  target, window = written.request.route.target, prediction.window
  print(
    f'{written.request.output}: {target.label} in {target.unit}, '
    f'{window.low:g} to {window.high:g}, shape {prediction.volume.data.shape}.',
    flush=True,
  )
  if intervals := runs.record(written.request)['Intervals']:
    low, high = sidecar.interval_paths(written.request.output)
    print(
      f'{low}, {high}: {100 * intervals["Level"]:g} % interval; it covered '
      f'{100 * intervals["Coverage"]:.1f} % of the voxels of '
      f'{intervals["CoverageSubjects"]} subjects of '
      f'{intervals["CoverageStore"]}.',
      flush=True,
    )
  after(written)
