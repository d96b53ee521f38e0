"""Results of an evaluation, and the files in WORKDIR/evaluation."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from etils.epath import Path
from jaxtyping import Float

from synermedgen_jax.core import files
from synermedgen_jax.evaluation import (
  metrics,
  protocol,
  routes,
  subjects,
  uncertainty,
  understanding,
  volume_files,
  wins,
)
from synermedgen_jax.evaluation.named_scores import ALL_SCORES
from synermedgen_jax.evaluation.scores import key_of
from synermedgen_jax.inference.intervals import Calibration
from synermedgen_jax.slices.store import Case, SliceStore

Examine = Callable[
  [protocol.RouteCase, protocol.Images], dict[str, dict[str, float]]
]
# The stage in config.json of a workdir with scores of outputs made elsewhere.
EXTERNAL = 'external'


@dataclasses.dataclass(frozen=True)
class Answered:
  """Results of the understanding tasks.

  Attributes:
    scores: result of `understanding.score`.
    by_subject: task -> {chance, answers}, see `evaluation.subjects`.
    pictured: the first few questions of each task with their predictions; the
      value of `images` is a list of indices into `images`.
    images: slices of the questions in `pictured`, in [-1, 1].
  """

  scores: Mapping[str, Any]
  by_subject: Mapping[str, Any]
  pictured: Sequence[Mapping[str, Any]]
  images: Float[np.ndarray, 'n h w']


@dataclasses.dataclass(frozen=True)
class Synthesised:
  """Results of synthesis.

  Attributes:
    scores: result of `routes.aggregate`.
    left_out: metric -> a case without it, of the registered metrics that not
      every case has.
    by_subject: route -> subject -> scores, those of volumes among them, see
      `evaluation.subjects`.
    sampling: timesteps and guidance as plain values, or {'synthesiser': name}.
    panels: route -> arrays of a few slices of its first subject.
    named_scores: score of volumes or of adherence -> route -> its metrics,
      means over subjects, and the count of subjects.
  """

  scores: Mapping[str, Any]
  left_out: Mapping[str, str]
  by_subject: Mapping[str, Any]
  sampling: Mapping[str, Any]
  panels: Mapping[str, Mapping[str, np.ndarray]]
  named_scores: Mapping[str, Mapping[str, Mapping[str, float]]]

  @classmethod
  def gather(
    cls,
    scored: Iterable[protocol.Scored],
    sampling: Mapping[str, Any],
    *,
    volume_scores: Sequence[str] = (),
    adherence: Sequence[str] = (),
    examine: Examine | None = None,
  ) -> Synthesised:
    """Aggregates scored pairs.

    Args:
      scored: results of `protocol.score_routes` or `protocol.score_outputs`.
      sampling: see the attribute.
      volume_scores: scores of volumes to add, keys of `VOLUME_SCORES`; the
        pairs then need all usable slices.
      adherence: scores that `examine` adds.
      examine: pair, synthesised slices -> score -> metric -> value.
    """
    scores, panels = [], {}
    cases = defaultdict(lambda: defaultdict(list))
    for item, synthesis, rows in scored:
      scores += rows
      values = protocol.volume_scores(item, synthesis, volume_scores)
      if adherence:
        values |= examine(item, synthesis)
      for name, metrics_of_case in values.items():
        cases[name, item.route.name][item.case.person].append(metrics_of_case)
      if item.route.name not in panels:
        panels[item.route.name] = protocol.panel(item, synthesis)
    scores, left_out = routes.with_common_metrics(scores)
    by_subject = subjects.synthesis_by_subject(scores)
    means = {name: {} for name in (*volume_scores, *adherence)}
    for (name, route), of_subjects in cases.items():
      people = {
        subject: _mean(values) for subject, values in of_subjects.items()
      }
      means[name][route] = _mean([*people.values()]) | {'count': len(people)}
      for subject, values in people.items():
        by_subject[route][subject] |= {
          key_of(name, metric): value for metric, value in values.items()
        }
    return cls(
      routes.aggregate(scores), left_out, by_subject, sampling, panels, means
    )


def _mean(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
  """Metric -> its mean."""
  return {name: float(np.mean([s[name] for s in scores])) for name in scores[0]}


@dataclasses.dataclass(frozen=True)
class Measurements:
  """Results of `measure`; a part that was not measured is None."""

  understanding: Answered | None
  synthesis: Synthesised | None
  intervals: Calibration | None = None


def write_results(
  workdir: Path,
  store: SliceStore,
  cases: Sequence[Case],
  measured: Measurements,
  settings: Mapping[str, Any],
  *,
  volumes: volume_files.VolumeFiles | None = None,
  **about: Any,
) -> dict[str, Any]:
  """Writes WORKDIR/evaluation, metrics.json last.

  Intervals of an earlier evaluation are kept; their file states the checkpoint
  and the sampling that they hold for.

  Args:
    workdir: folder of the run.
    store: the store of the cases.
    cases: the measured cases.
    measured: the results.
    settings: `settings` of subjects.json without the store, among them split
      and slices.
    volumes: volumes of the synthesised pairs, to be written beside; those of
      an earlier evaluation are removed.
    **about: further keys of metrics.json, as JSON values.

  Returns:
    The content of metrics.json.
  """
  out = workdir / 'evaluation'
  result = {
    'split': settings['split'],
    'store': store.path,
    'subjects': sorted({c.id for c in cases}),
    **about,
    'definition': {},
  }
  by_subject = {
    'version': subjects.VERSION,
    'settings': {**settings, 'store': store.fingerprint},
    'subjects': {case.person: case.dataset for case in cases},
  }
  if answered := measured.understanding:
    result |= answered.scores
    result['definition']['understanding'] = understanding.definitions(
      answered.scores['understanding']
    )
    by_subject['understanding'] = answered.by_subject
    files.write_npz(out / 'understanding.npz', {'images': answered.images})
    files.write_json(out / 'understanding.json', answered.pictured)
  if synthesised := measured.synthesis:
    result |= synthesised.scores
    result['sampling'] = synthesised.sampling
    result['slices'] = settings['slices'] or 'all usable'
    result['left_out'] = synthesised.left_out
    result['definition']['synthesis'] = {
      name: definition
      for name, definition in metrics.definitions().items()
      if name not in synthesised.left_out
    }
    result['definition']['baselines'] = routes.BASELINE_DEFINITIONS
    result['definition']['win'] = wins.DEFINITION
    for name, by_route in synthesised.named_scores.items():
      result[name] = by_route
      result['definition'][name] = ALL_SCORES[name].definition
    by_subject['synthesis'] = synthesised.by_subject
    by_subject['sampling'] = synthesised.sampling
    for route, arrays in synthesised.panels.items():
      files.write_npz(out / 'panels' / f'{route}.npz', arrays)
  if intervals := measured.intervals:
    result['definition']['intervals'] = uncertainty.DEFINITION
    intervals.write(workdir, uncertainty.DEFINITION)
  if volumes and synthesised:
    volumes.publish(synthesised.by_subject)
  else:
    volume_files.remove_volumes(workdir)
  files.write_json(workdir / subjects.FILE, by_subject)
  files.write_json(out / 'metrics.json', result)
  return result
