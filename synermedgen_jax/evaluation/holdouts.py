"""How results change from one holdout to another, paired by subject.

Holdouts of phantoms show the same subjects under different scanners
(`phantoms/shifts.py`). Their results lie in ROOT/HOLDOUT/SYSTEM. Differences
are taken from the holdout `none`, that of the training scanners.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from synermedgen_jax.core.modalities import Route, route_named
from synermedgen_jax.evaluation import bootstrap
from synermedgen_jax.evaluation.bootstrap import GroupSums, Resamples
from synermedgen_jax.evaluation.comparison import ComparisonError, Estimate
from synermedgen_jax.evaluation.subjects import FILE, Subjects, read_subjects
from synermedgen_jax.phantoms.shifts import NONE, SHIFTS
from synermedgen_jax.tasks.registry import asked_tasks

COPY = 'copy_source'
# Settings that are equal for a system on two holdouts, and for two systems on
# one.
_OF_SYSTEM = (*('split', 'slices', 'questions', 'seed', 'neighbours', 'steps'),)
_OF_HOLDOUT = ('split', 'slices', 'seed', 'store')

# holdout -> system -> results
Results = Mapping[str, Mapping[str, Subjects]]


@dataclasses.dataclass(frozen=True)
class Group:
  """Routes of a holdout whose scores are averaged.

  Attributes:
    title: what they have in common.
    routes: their names, not empty.
  """

  title: str
  routes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Cell:
  """A number of a system on a holdout, x 100.

  Attributes:
    value: mean over subjects and routes.
    difference: paired difference from `none`; None without that holdout, and
      for itself.
    subjects: number of subjects with the number, also on `none`.
  """

  value: Estimate
  difference: Estimate | None
  subjects: int


@dataclasses.dataclass(frozen=True)
class Row:
  """A line of the table.

  Attributes:
    holdout: its name.
    group: the routes of the line.
    cells: system -> cell, of the systems that have the number.
  """

  holdout: str
  group: Group
  cells: Mapping[str, Cell]


def read_results(root: Path, systems: Sequence[str] = ()) -> Results:
  """Reads ROOT/HOLDOUT/SYSTEM/evaluation/subjects.json.

  Args:
    root: folder of the holdouts.
    systems: names of the systems, in order; empty = all, by name.

  Returns:
    Results of the holdouts in the order of `SHIFTS`, then by name.

  Raises:
    ComparisonError: there are none, or two systems were not evaluated on the
      same slices of a holdout.
    ResultError: a file is malformed.
  """
  paths = {
    path.relative_to(root).parts[:2]: path for path in root.glob(f'*/*/{FILE}')
  }
  names = systems or sorted({system for _, system in paths})
  order = {name: place for place, name in enumerate(SHIFTS)}
  holdouts = sorted(
    {holdout for holdout, _ in paths},
    key=lambda name: (order.get(name, len(order)), name),
  )
  results = {
    holdout: {
      system: read_subjects(paths[holdout, system])
      for system in names
      if (holdout, system) in paths
    }
    for holdout in holdouts
  }
  results = {holdout: runs for holdout, runs in results.items() if runs}
  for runs in results.values():
    first, *others = runs.values()
    for run in others:
      _check_same(run, first, _OF_HOLDOUT)
  if not results:
    raise ComparisonError(
      f'{root}: has no HOLDOUT/SYSTEM/{FILE} of {", ".join(names) or "any"}; '
      'launch/holdout.sh writes them.'
    )
  return results


def groups_of(holdout: str, routes: Sequence[Route]) -> list[Group]:
  """The groups of routes that a holdout is measured by.

  Those of a shift are the routes whose source or target it changes, and among
  them those whose target, the truth, stays and those whose truth changes too.
  Any other holdout has all its routes, and those of each cohort.

  Args:
    holdout: name of the holdout.
    routes: the scored routes.
  """
  shift = SHIFTS.get(holdout)
  if shift is None:
    cohorts = dict.fromkeys(route.cohort for route in routes)
    parts = {
      name: [r for r in routes if r.cohort == name]
      for name in (cohorts if len(cohorts) > 1 else ())
    }
  else:
    routes = [
      route
      for route in routes
      if holdout == NONE
      or any(map(shift.changes, (*route.sources, route.target)))
    ]
    stays = [r for r in routes if not shift.changes(r.target)]
    parts = {
      'the truth stays': stays,
      'the truth changes': [r for r in routes if r not in stays],
    }
    # Of two volumes that are misregistered, neither is the wrong one.
    if shift.misregistered or not all(parts.values()):
      parts = {}
  return [
    Group(title, tuple(route.name for route in group))
    for title, group in {'all': routes, **parts}.items()
    if group
  ]


def synthesis_rows(results: Results, *, resamples: int = 2000) -> list[Row]:
  """SSIM in the body x 100 of every holdout, group of routes and system.

  `copy_source` is a system too: the baseline of the first system.

  Raises:
    ComparisonError: results of a holdout and of `none` have other settings.
  """
  rows = []
  for holdout, runs in results.items():
    scored = {name for run in runs.values() for name in run.synthesis}
    for group in groups_of(holdout, list(map(route_named, sorted(scored)))):
      cells = {
        system: _cell(results, holdout, system, group, _ssim_sums, resamples)
        for system in runs
      }
      first = next(iter(runs))
      cells[COPY] = _cell(results, holdout, first, group, _copy_sums, resamples)
      rows.append(Row(holdout, group, {k: c for k, c in cells.items() if c}))
  return rows


def task_rows(
  results: Results, task: str, *, resamples: int = 2000
) -> list[Row]:
  """Accuracy x 100 of a task, of every holdout and system that was asked.

  Questions about the routes of the holdout's first group count; a question
  without a route, as those of MI, counts for the subjects of these cohorts.
  """
  rows = []

  def sums(run, group, names):
    return _task_sums(run, task, group, names)

  for holdout, runs in results.items():
    asked = {
      name: run for name, run in runs.items() if task in run.understanding
    }
    routes = {
      answer['route']
      for run in asked.values()
      for entry in run.understanding.values()
      for answer in entry['answers']
    } - {''}
    for group in groups_of(holdout, list(map(route_named, sorted(routes))))[:1]:
      cells = {
        system: _cell(results, holdout, system, group, sums, resamples)
        for system in asked
      }
      rows.append(Row(holdout, group, {k: c for k, c in cells.items() if c}))
  return [row for row in rows if row.cells]


def asked(results: Results) -> list[str]:
  """Names of the tasks that any system was asked, in the order of tables."""
  named = {
    task
    for runs in results.values()
    for run in runs.values()
    for task in run.understanding
  }
  return [task.name for task in asked_tasks() if task.name in named]


def _cell(
  results: Results,
  holdout: str,
  system: str,
  group: Group,
  sums_of: Callable[[Subjects, Group, Sequence[str]], GroupSums],
  resamples: int,
) -> Cell | None:
  """The number of a system on a holdout; None if nothing was measured."""
  run = results[holdout][system]
  reference = None
  if holdout in SHIFTS:
    reference = results.get(NONE, {}).get(system)
  if reference is not None:
    _check_same(run, reference, _OF_SYSTEM)
  both = run.subjects if reference is None else reference.subjects
  names = sorted(run.subjects.keys() & both.keys())
  own = sums_of(run, group, names)
  if not own.measured.any():
    return None
  drawn = Resamples.draw([run.subjects[n] for n in names], resamples, 0)
  weights = np.concatenate([np.ones_like(drawn.weights[:1]), drawn.weights])

  def estimate(values, measured):
    """The first value, and the interval of the others."""
    interval = drawn.interval(values[1:], measured)
    return Estimate(float(values[0]), *interval)

  values = bootstrap.number(own, weights)
  difference = None
  if reference is not None and holdout != NONE:
    pair = _measured_in_both(own, sums_of(reference, group, names))
    if pair[0].measured.any():
      after, before = (bootstrap.number(sums, weights) for sums in pair)
      difference = estimate(after - before, pair[0].measured)
  return Cell(
    estimate(values, own.measured), difference, int(own.measured.sum())
  )


def _measured_in_both(
  a: GroupSums, b: GroupSums
) -> tuple[GroupSums, GroupSums]:
  """The sums of the subjects and groups that both have measured."""
  both = (a.counts > 0) & (b.counts > 0)
  return tuple(
    GroupSums(np.where(both, s.values, 0), np.where(both, s.counts, 0))
    for s in (a, b)
  )


def _check_same(
  run: Subjects, reference: Subjects, settings: Sequence[str]
) -> None:
  """Raises unless both were evaluated with the same settings."""
  different = [
    key
    for key in settings
    if run.settings.get(key) != reference.settings.get(key)
  ]
  if settings is _OF_SYSTEM and run.sampling != reference.sampling:
    different.append('sampling')
  if different:
    raise ComparisonError(
      f'{run.path}: has other {", ".join(different)} than {reference.path}; '
      'evaluate both with the same options and weights.'
    )


def _ssim_sums(
  run: Subjects, group: Group, names: Sequence[str], baseline: str = ''
) -> GroupSums:
  """SSIM x 100 of the routes of a group, for every subject."""
  values = np.zeros((len(group.routes), len(names)))
  counts = np.zeros_like(values)
  for row, route in enumerate(group.routes):
    for column, name in enumerate(names):
      entry = run.synthesis.get(route, {}).get(name, {'baselines': {}})
      scores = entry['baselines'].get(baseline, {}) if baseline else entry
      if 'ssim' in scores:
        values[row, column] = 100 * scores['ssim']
        counts[row, column] = 1
  return GroupSums(values, counts)


def _copy_sums(run: Subjects, group: Group, names: Sequence[str]) -> GroupSums:
  return _ssim_sums(run, group, names, COPY)


def _task_sums(
  run: Subjects, task: str, group: Group, names: Sequence[str]
) -> GroupSums:
  """Right answers x 100 and questions of a task, for every subject."""
  values, counts = np.zeros((1, len(names))), np.zeros((1, len(names)))
  columns = {name: column for column, name in enumerate(names)}
  having = _subjects_of(run, group)
  for answer in run.understanding.get(task, {'answers': ()})['answers']:
    subject, route = answer['subject'], answer['route']
    counted = route in group.routes if route else subject in having
    if counted and subject in columns:
      values[0, columns[subject]] += 100 * answer['right']
      counts[0, columns[subject]] += answer['asked']
  return GroupSums(values, counts)


def _subjects_of(run: Subjects, group: Group) -> set[str]:
  """Subjects that have a route of the group."""
  return {
    subject
    for route in group.routes
    for subject in run.synthesis.get(route, {})
  } | {
    answer['subject']
    for entry in run.understanding.values()
    for answer in entry['answers']
    if answer['route'] in group.routes
  }
