"""Samples packed rows like those of a run, without reading its volumes.

The cost of a row depends on the sizes of its examples, not on their pixels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from synermedgen_jax.core.batch import Capacity, ImageGeometry, PackedBatch
from synermedgen_jax.core.modalities import ROUTES, Route, routes_named
from synermedgen_jax.input.pipeline import (
  Mixture,
  example_dataset,
  train_dataset,
)
from synermedgen_jax.input.row_sizes import check_longest
from synermedgen_jax.input.tokenizer import Tokenizer
from synermedgen_jax.slices.store import Case
from synermedgen_jax.slices.windows import Window
from synermedgen_jax.tasks.example import Example
from synermedgen_jax.tasks.pairs import Pool
from synermedgen_jax.tasks.prompts import PROMPTS, Prompts
from synermedgen_jax.tasks.registry import TASKS, task_names
from synermedgen_jax.training.loop import BagelRun

_SLICES = 32


@dataclasses.dataclass(frozen=True)
class _Blank:
  """A placeholder for a slice."""

  def read(self) -> Float[np.ndarray, '2 2']:
    return np.zeros((2, 2), np.float32)


def sample_rows(
  tasks: Mapping[str, float],
  prompts: Prompts,
  tokenizer: Tokenizer,
  geometry: ImageGeometry,
  capacity: Capacity,
  *,
  rows: int,
  routes: Sequence[str] = (),
  max_sources: int = 1,
) -> PackedBatch:
  """Packs `rows` rows of blank slices.

  Args:
    tasks: task -> share of the examples. Tasks that are not built from pairs
      are left out, since they read files.
    prompts: wordings of the examples.
    tokenizer, geometry, capacity: see `input.packing`.
    rows: number of rows.
    routes: names of the routes; empty = the paper's 22.
    max_sources: largest number of sources that synthesis draws.

  Raises:
    ExampleTooLarge: an example exceeds the capacity.
  """
  pool = Pool(
    _cases(routes_named(routes) or ROUTES),
    prompts,
    routes=routes,
    max_sources=max_sources,
  )
  tasks = {t: tasks[t] for t in task_names(tasks) if TASKS[t].build}
  for task in tasks:
    check_longest(TASKS[task], pool, tokenizer, geometry, capacity)

  def source(task: str):
    return lambda seed: example_dataset(pool, TASKS[task], seed=seed).map(
      _blank
    )

  dataset = train_dataset(
    None,
    'train',
    tokenizer,
    geometry,
    capacity,
    Mixture(tasks, sources={task: source(task) for task in tasks}),
    rows=rows,
    seed=0,
    threads=1,
  )
  return next(iter(dataset))


def sample_rows_of(run: BagelRun, *, rows: int) -> PackedBatch:
  """Packs `rows` rows like those that a run trains on."""
  return sample_rows(
    run.config['tasks'],
    PROMPTS[run.config['prompts']],
    run.tokenizer,
    run.geometry,
    run.capacity,
    rows=rows,
    routes=run.config['routes'],
    max_sources=run.config['max_sources'],
  )


def _cases(routes: Sequence[Route]) -> list[Case]:
  """One case per cohort, with all modalities of its routes."""
  cases = []
  for cohort in sorted({route.cohort for route in routes}):
    own = [route for route in routes if route.cohort == cohort]
    modalities = sorted({m for r in own for m in (*r.sources, r.target)})
    cases.append(
      Case(
        id=cohort,
        dataset=cohort,
        subject=cohort,
        region=own[0].region,
        split='train',
        modalities={m: Window(0.0, 1.0) for m in modalities},
        sources=dict.fromkeys(modalities, ''),
        shape=(_SLICES, 2, 2),
        affine=tuple(map(tuple, np.eye(4).tolist())),
        plane='axial',
        usable=range(_SLICES),
      )
    )
  return cases


def _blank(example: Example) -> Example:
  return dataclasses.replace(
    example,
    spans=tuple(
      dataclasses.replace(span, image=_Blank()) if span.image else span
      for span in example.spans
    ),
  )
