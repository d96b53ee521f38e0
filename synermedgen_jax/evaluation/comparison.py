"""Compares evaluated runs, arms x seeds, with bootstrap intervals."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from synermedgen_jax.config.sampling import SamplingConfig
from synermedgen_jax.core.errors import UserError
from synermedgen_jax.evaluation import bootstrap
from synermedgen_jax.evaluation.bootstrap import GroupSums, Resamples
from synermedgen_jax.evaluation.lines import Line, comparison_lines
from synermedgen_jax.evaluation.routes import BASELINES
from synermedgen_jax.evaluation.subjects import FILE, Subjects, read_subjects

_OF_MODELS = ('questions', 'seed', 'neighbours')  # settings of `evaluate` alone
_OTHER_SYSTEMS = {'synthesiser', 'system'}  # keys of the sampling of others

# Results of older versions lack newer settings, which were off.
_OFF = {
  field.name: [*default] if isinstance(default, tuple) else default
  for field in dataclasses.fields(SamplingConfig)
  if isinstance(default := field.default, int | float | tuple)
}


class ComparisonError(UserError):
  """The runs cannot be compared; one line that names them."""


@dataclasses.dataclass(frozen=True)
class Estimate:
  """A number and its 95 % interval, in the unit of its line.

  Without an interval, `low` and `high` are NaN (`Resamples.interval`).
  """

  value: float
  low: float
  high: float


@dataclasses.dataclass(frozen=True)
class Result:
  """One number of one arm.

  Attributes:
    estimate: mean over seeds and subjects.
    difference: paired difference from the reference arm; None for the
      reference arm.
    seeds: seed -> value of that run.
  """

  estimate: Estimate
  difference: Estimate | None
  seeds: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Results of `compare`.

  Attributes:
    reference: the arm that differences are taken from.
    arms: the requested arms, in order, with or without evaluations.
    results: line -> arm -> result, for the arms that measured the line.
    baselines: line -> baseline -> estimate; for a task, 'chance'.
    routes: line -> number of scored routes; 0 for a task.
    subjects: dataset -> number of subjects.
    seeds: arm -> its seeds.
    settings: settings that all evaluations share.
    resamples: number of bootstrap resamples.
  """

  reference: str
  arms: Sequence[str]
  results: Mapping[str, Mapping[str, Result]]
  baselines: Mapping[str, Mapping[str, Estimate]]
  routes: Mapping[str, int]
  subjects: Mapping[str, int]
  seeds: Mapping[str, Sequence[str]]
  settings: Mapping[str, object]
  resamples: int


Runs = Mapping[str, Mapping[str, Subjects]]


def read_runs(root: Path, arms: Sequence[str]) -> Runs:
  """Reads ROOT/SEED/ARM/evaluation/subjects.json of the given arms.

  Returns:
    arm -> seed -> evaluation, without the arms that have no evaluation.

  Raises:
    ComparisonError: no arm has an evaluation.
    ResultError: a file is malformed.
  """
  runs: dict[str, dict[str, Subjects]] = {}
  for arm in arms:
    for path in sorted(root.glob(f'*/{arm}/{FILE}')):
      seed = path.relative_to(root).parts[0]
      runs.setdefault(arm, {})[seed] = read_subjects(path)
  if not runs:
    raise ComparisonError(
      f'{root}: has no SEED/ARM/{FILE} of {", ".join(arms)}; run '
      'python -m synermedgen_jax.evaluate on the workdirs ROOT/SEED/ARM.'
    )
  return runs


def compare(
  runs: Runs,
  arms: Sequence[str],
  *,
  reference: str,
  lines: Sequence[Line] = (),
  resamples: int = 2000,
  seed: int = 0,
) -> Comparison:
  """Computes means, intervals and differences of all arms for all lines.

  Seeds are averaged within each subject. All arms and lines share the same
  resamples of subjects.

  Args:
    runs: arm -> seed -> evaluation.
    arms: the requested arms, in the order of the table.
    reference: the arm that differences are taken from.
    lines: the numbers to compare; empty = all.
    resamples: number of bootstrap resamples.
    seed: random seed of the resampling.

  Raises:
    ComparisonError: the reference has no evaluation, or two runs were
      evaluated with different settings, subjects, routes or questions.
  """
  if reference not in runs:
    raise ComparisonError(
      f'The reference arm {reference!r} has no evaluation; set --reference '
      f'to one of {", ".join(runs)}.'
    )
  first = next(iter(runs[reference].values()))
  names = sorted(first.subjects)
  datasets = [first.subjects[name] for name in names]
  drawn = Resamples.draw(datasets, resamples, seed)
  results, baselines, routes = {}, {}, {}
  for line in lines or comparison_lines():
    sums = _sums_of_arms(runs, line, names, reference)
    if reference not in sums:
      continue
    results[line.name] = _results(sums, drawn, reference)
    baselines[line.name] = _baselines(runs[reference], line, names, drawn)
    scored = next(iter(sums[reference].values())).counts
    routes[line.name] = len(scored) if line.routes else 0
  return Comparison(
    reference=reference,
    arms=arms,
    results=results,
    baselines=baselines,
    routes=routes,
    subjects={d: datasets.count(d) for d in sorted(set(datasets))},
    seeds={arm: list(by_seed) for arm, by_seed in runs.items()},
    settings=first.settings,
    resamples=resamples,
  )


def _sums_of_arms(
  runs: Runs, line: Line, names: Sequence[str], reference: str
) -> dict[str, dict[str, GroupSums]]:
  """Arm -> seed -> sums of a line; raises unless all counts are equal."""
  sums_of_arms: dict[str, dict[str, GroupSums]] = {}
  for arm, by_seed in runs.items():
    for seed, run in by_seed.items():
      if _scored(run, line):
        sums_of_arms.setdefault(arm, {})[seed] = _sums(run, line, names)
  expected = next(iter(runs[reference].values()))
  if reference not in sums_of_arms:
    return sums_of_arms
  measured, sums = next(iter(sums_of_arms[reference].items()))
  groups, counts = _scored(runs[reference][measured], line), sums.counts
  for arm, by_seed in sums_of_arms.items():
    for seed, sums in by_seed.items():
      run = runs[arm][seed]
      asked_alike = _scored(run, line) == groups and _same(sums.counts, counts)
      if not asked_alike or _settings_differ(run, expected):
        raise ComparisonError(
          f'{run.path}: subjects, routes, slices, questions, seed or store '
          f'differ from {expected.path}; evaluate both with the same options.'
        )
      if line.routes and _sampling_differs(run, expected):
        raise ComparisonError(
          f'{run.path}: sampled with {run.sampling}, but {expected.path} with '
          f'{expected.sampling}; evaluate both with the same options.'
        )
  return sums_of_arms


def _settings_differ(a: Subjects, b: Subjects) -> bool:
  """Whether settings differ that numbers depend on.

  The steps of a training are of its arm. Other systems lack the settings of a
  model.
  """
  keys = {*a.settings, *b.settings} - {'steps'}
  for run in (a, b):
    if _OTHER_SYSTEMS & run.sampling.keys():
      keys -= {*_OF_MODELS} - run.settings.keys()
  return any(a.settings.get(key) != b.settings.get(key) for key in keys)


def _sampling_differs(a: Subjects, b: Subjects) -> bool:
  """Whether two runs sampled differently; other systems have no sampling."""
  others = _OTHER_SYSTEMS & {*a.sampling, *b.sampling}
  return not others and _OFF | {**a.sampling} != _OFF | {**b.sampling}


def _same(a: np.ndarray, b: np.ndarray) -> bool:
  return a.shape == b.shape and bool((a == b).all())


def _scored(run: Subjects, line: Line) -> list[str]:
  """The routes, or the task, of a line that a run has measured."""
  if line.task:
    return [line.task] if line.task in run.understanding else []
  return [
    route
    for route in line.routes
    if any(line.metric in e for e in run.synthesis.get(route, {}).values())
  ]


def _sums(
  run: Subjects, line: Line, names: Sequence[str], baseline: str = ''
) -> GroupSums:
  """Sums of a line, in its unit, of the model or of a baseline."""
  groups = _scored(run, line)
  values = np.zeros((len(groups), len(names)))
  counts = np.zeros_like(values)
  # Counts of -1 differ from the reference's, so the caller refuses the run.
  others = set(run.subjects) - set(names)
  columns = {name: column for column, name in enumerate(names)}
  if others:
    counts = np.full_like(counts, -1)
    return GroupSums(values, counts)
  for row, group in enumerate(groups):
    if line.task:
      for answer in run.understanding[group]['answers']:
        values[row, columns[answer['subject']]] += line.scale * answer['right']
        counts[row, columns[answer['subject']]] += answer['asked']
    else:
      for subject, entry in run.synthesis[group].items():
        score = entry['baselines'].get(baseline) if baseline else entry
        if score and line.metric in score:
          values[row, columns[subject]] += line.scale * score[line.metric]
          counts[row, columns[subject]] += 1
  return GroupSums(values, counts)


def _mean(by_seed: Mapping[str, GroupSums]) -> GroupSums:
  """The mean over seeds for each group and subject."""
  sums = list(by_seed.values())
  return GroupSums(np.mean([s.values for s in sums], axis=0), sums[0].counts)


def _results(
  sums: Mapping[str, Mapping[str, GroupSums]],
  drawn: Resamples,
  reference: str,
) -> dict[str, Result]:
  reference_mean = _mean(sums[reference])
  results = {}
  for arm, by_seed in sums.items():
    mean = _mean(by_seed)
    difference = None
    if arm != reference:
      delta = GroupSums(mean.values - reference_mean.values, mean.counts)
      difference = _estimate(delta, drawn)
    seeds = {seed: _on_all(s) for seed, s in by_seed.items()}
    results[arm] = Result(_estimate(mean, drawn), difference, seeds)
  return results


def _on_all(sums: GroupSums) -> float:
  """The number on all subjects."""
  once = np.ones((1, sums.counts.shape[1]), np.int64)
  return float(bootstrap.number(sums, once)[0])


def _estimate(sums: GroupSums, drawn: Resamples) -> Estimate:
  values = bootstrap.number(sums, drawn.weights)
  return Estimate(_on_all(sums), *drawn.interval(values, sums.measured))


def _baselines(
  by_seed: Mapping[str, Subjects],
  line: Line,
  names: Sequence[str],
  drawn: Resamples,
) -> dict[str, Estimate]:
  """Estimates of the baselines in the reference's runs; chance for a task."""
  runs = [run for run in by_seed.values() if _scored(run, line)]
  if line.task:
    chance = line.scale * float(runs[0].understanding[line.task]['chance'])
    return {'chance': Estimate(chance, chance, chance)}
  estimates = {}
  for baseline in BASELINES:
    sums = [_sums(run, line, names, baseline) for run in runs]
    if all(s.counts.any() for s in sums):
      mean = _mean(dict(zip(map(str, range(len(sums))), sums, strict=True)))
      estimates[baseline] = _estimate(mean, drawn)
  return estimates
