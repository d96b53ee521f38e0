"""The numbers that `compare` compares arms by, one `Line` each."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

from synermedgen_jax.core.modalities import (
  ROUTES,
  Route,
  all_routes,
  routes_with,
)
from synermedgen_jax.evaluation.named_scores import ALL_SCORES
from synermedgen_jax.evaluation.scores import key_of
from synermedgen_jax.tasks.registry import Task, asked_tasks


@dataclasses.dataclass(frozen=True)
class Line:
  """One number that arms are compared by.

  Attributes:
    name: key in results.
    title: label in tables and plots.
    routes: names of the routes whose scores are averaged; empty for a task.
    task: name of the task whose accuracy is used; '' for routes.
    definition: definition for readers.
    metric: key of the averaged score in subjects.json.
    scale: factor of the score.
    unit: unit of the scaled score.
    decimals: of the scaled score in tables.
  """

  name: str
  title: str
  routes: tuple[str, ...] = ()
  task: str = ''
  definition: str = ''
  metric: str = 'ssim'
  scale: float = 100.0
  unit: str = 'x 100'
  decimals: int = 1


_ALL = tuple(route.name for route in ROUTES)
_BRATS = tuple(route.name for route in ROUTES if route.cohort == 'brats')
_OTHERS = tuple(name for name in _ALL if name not in _BRATS)
_SSIM = (
  'SSIM x 100 within the body mask (2-D, Gaussian window of sigma 1.5, both '
  "images clipped to the target's window): mean over the body of a subject, "
  'then over subjects, then over the '
)
_ROUTE_LINES = (
  Line('ssim_22', 'SSIM, 22 routes', _ALL, '', f'{_SSIM}22 routes.'),
  Line(
    'ssim_10',
    'SSIM, 10 CT/CBCT/PET/MR routes',
    _OTHERS,
    '',
    f'{_SSIM}10 routes between CT, CBCT, PET and MR.',
  ),
  Line(
    'ssim_12',
    'SSIM, 12 BraTS routes',
    _BRATS,
    '',
    f'{_SSIM}12 routes between T1, T1CE, T2 and FLAIR.',
  ),
)


def comparison_lines() -> tuple[Line, ...]:
  """SSIM over routes, scores by name, then one number per asked task."""
  other = Line(
    'ssim_other',
    'SSIM, other routes',
    tuple(r.name for r in all_routes() if r.name not in _ALL),
    definition=f'{_SSIM}routes of other regions or modalities.',
  )
  return (
    *_ROUTE_LINES,
    other,
    *_several_sources(),
    *_score_lines(),
    *map(_task_line, asked_tasks()),
  )


def _routes_by_sources() -> Iterator[tuple[str, str, tuple[Route, ...]]]:
  """Yields suffix of names, title, routes: one source, two sources, …"""
  yield '', 'routes', all_routes()
  for count in itertools.count(2):
    if not (routes := routes_with(count)):
      return
    yield f'_sources_{count}', f'routes with {count} sources', routes


def _several_sources() -> Iterator[Line]:
  """A line per number of sources above one that a route has."""
  for suffix, title, routes in itertools.islice(_routes_by_sources(), 1, None):
    yield Line(
      f'ssim{suffix}',
      f'SSIM, {title}',
      tuple(route.name for route in routes),
      definition=f'{_SSIM}{title}.',
    )


def _score_lines() -> Iterator[Line]:
  """A line per number of a score by name and number of sources."""
  for (suffix, title, routes), (name, score) in itertools.product(
    _routes_by_sources(), ALL_SCORES.items()
  ):
    scored = tuple(route.name for route in routes if score.applies(route))
    stated = ' '.join(
      f'{k.capitalize()}: {text}.' for k, text in score.definition.items()
    )
    for metric, number in score.numbers.items() if scored else ():
      key = key_of(name, metric)
      yield Line(
        f'{key}{suffix}',
        f'{score.title}: {number.label}, {len(scored)} {title}',
        scored,
        definition=f'{stated} Mean over the cases of a subject, then over '
        'subjects, then over the routes.',
        metric=key,
        scale=1.0 if number.unit else 100.0,
        unit=number.unit or 'x 100',
        decimals=number.decimals if number.unit else 1,
      )


def _task_line(task: Task) -> Line:
  accuracy = task.scoring.definition['accuracy']
  return Line(
    task.name,
    f'{task.name.upper()}, accuracy',
    task=task.name,
    definition=f'{task.title.capitalize()}: {task.definition}. '
    f'{accuracy.capitalize()}, x 100.',
  )
