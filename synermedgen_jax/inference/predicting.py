"""Predicts all requested volumes with one loaded model, and writes them."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from synermedgen_jax.config.failures import describe
from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.modalities import Modality
from synermedgen_jax.inference import sidecar
from synermedgen_jax.inference.prediction import Prediction
from synermedgen_jax.inference.prediction_inputs import Request, Requests
from synermedgen_jax.inference.prediction_runs import PredictSettings, Runs
from synermedgen_jax.inference.translation import (
  OVERRIDE,
  check_sources,
)
from synermedgen_jax.inference.workdir import WorkdirError
from synermedgen_jax.slices.units import check_units
from synermedgen_jax.slices.volumes import (
  Volume,
  check_writable,
  read_volume,
  write_volume,
)


class PredictionError(UserError):
  """Some of several volumes could not be predicted; one line names them."""


@dataclasses.dataclass(frozen=True)
class Written:
  """A volume that was predicted and written.

  Attributes:
    request: the request.
    sources: source -> its volume.
    prediction: the result.
    intervals: the record of its interval; None = it has none.
  """

  request: Request
  sources: Mapping[Modality, Volume]
  prediction: Prediction
  intervals: Mapping[str, Any] | None = None


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
  repeated = len(settings.workdirs) - len(set(settings.workdirs))
  if repeated:
    raise WorkdirError('--workdir: names a run twice; leave one out.')
  runs = Runs(settings)
  for route in dict.fromkeys(r.route for r in requests.requests):
    for workdir in settings.workdirs:
      runs.check(workdir, route)
  if requests.single:
    (request,) = requests.requests
    _check_output(request, settings)
    sources = _read(request, settings)  # before the model is loaded
    _report(predict_request(request, sources, runs), after)
    return
  for line in (*requests.skipped, *requests.faults):
    print(f'Skipped {line}', file=sys.stderr)
  _predict_several(requests, runs, after)


def _predict_several(
  requests: Requests,
  runs: Runs,
  after: Callable[[Written], None],
) -> None:
  settings, failed, kept = runs.settings, [], 0
  count = len(requests.requests)
  _ = runs.predictor  # a run that cannot be loaded is no fault of a volume
  for i, request in enumerate(requests.requests, 1):
    try:
      _check_output(request, settings)
      record = runs.record(request)
      if not settings.overwrite and sidecar.is_finished(request.output, record):
        kept += 1
        continue
      print(f'{i} of {count}: {request.name}', flush=True)
      sources = _read(request, settings)
      _report(predict_request(request, sources, runs), after)
    except Exception as error:
      line = describe(error)
      if line is None:
        raise
      failed.append(request.name)
      print(f'{request.name}: {line}', file=sys.stderr, flush=True)
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
  if requests.faults:
    raise PredictionError(
      f'{len(requests.faults)} faults of the input, listed above; the other '
      f'{count} volumes are predicted.'
    )


def _check_output(request: Request, settings: PredictSettings) -> None:
  files, outputs = list(request.files.values()), [request.output]
  if settings.intervals:
    outputs += sidecar.interval_paths(request.output)
  for output in outputs:
    check_writable(output, like=files[0], inputs=files)
    sidecar.check_replaceable(output)


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
  record = runs.record(request, names)
  sidecar.write_sidecar(output, record, prediction.findings)
  return Written(request, sources, prediction, record['Intervals'])


def _report(written: Written, after: Callable[[Written], None]) -> None:
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
  if intervals := written.intervals:
    low, high = sidecar.interval_paths(written.request.output)
    print(
      f'{low}, {high}: {100 * intervals["Level"]:g} % interval; it covered '
      f'{100 * intervals["Coverage"]:.1f} % of the voxels of '
      f'{intervals["CoverageSubjects"]} subjects of '
      f'{intervals["CoverageStore"]}.',
      flush=True,
    )
  after(written)
