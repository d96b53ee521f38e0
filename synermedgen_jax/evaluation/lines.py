"""The numbers that `compare` compares arms by, one `Line` each."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

from synermedgen_jax.core.modalities import ROUTES, all_routes, routes_with
from synermedgen_jax.tasks.registry import Task, asked_tasks


@dataclasses.dataclass(frozen=True)
class Line:
  """One number that arms are compared by, as a percentage.

  Attributes:
    name: key in results.
    title: label in tables and plots.
    routes: names of the routes whose SSIM is averaged; empty for a task.
    task: name of the task whose accuracy is used; '' for routes.
    definition: definition for readers.
  """

  name: str
  title: str
  routes: tuple[str, ...] = ()
  task: str = ''
  definition: str = ''


_ALL = tuple(route.name for route in ROUTES)
_BRATS = tuple(route.name for route in ROUTES if route.cohort == 'brats')
_OTHERS = tuple(name for name in _ALL if name not in _BRATS)
_SSIM = (
  'SSIM x 100 within the body mask (2-D, Gaussian window of sigma 1.5, both '
  "images clipped to the target's window): mean over the slices of a subject, "
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
  """The numbers of a comparison: SSIM over routes, then one per asked task."""
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
    *map(_task_line, asked_tasks()),
  )


def _several_sources() -> Iterator[Line]:
  """A line per number of sources above one that a route has."""
  for count in itertools.count(2):
    if not (routes := routes_with(count)):
      return
    yield Line(
      f'ssim_sources_{count}',
      f'SSIM, routes with {count} sources',
      tuple(route.name for route in routes),
      definition=f'{_SSIM}routes with {count} sources.',
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
