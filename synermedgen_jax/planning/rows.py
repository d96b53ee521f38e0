"""Samples packed rows like those of a run, without reading its volumes.

The cost of a row depends on the sizes of its examples, not on their pixels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from synermedgen_jax.core.batch import Capacity, ImageGeometry, PackedBatch
from synermedgen_jax.core.modalities import ROUTES, Route, routes_named
from synermedgen_jax.input.mixture import Dropout, Mixture
from synermedgen_jax.input.pipeline import example_dataset, train_dataset
from synermedgen_jax.input.row_sizes import check_longest
from synermedgen_jax.input.tokenizer import Tokenizer
from synermedgen_jax.slices.store import Case
from synermedgen_jax.slices.windows import Window
from synermedgen_jax.tasks.example import Example
from synermedgen_jax.tasks.registry import TASKS, task_names
from synermedgen_jax.training.loop import BagelRun

_SLICES = 32
_NO_DROPOUT = Dropout()


@dataclasses.dataclass(frozen=True)
class _Blank:
  """A placeholder for a slice."""

  def read(self) -> Float[np.ndarray, '2 2']:
    return np.zeros((2, 2), np.float32)


def sample_rows(
  mixture: Mixture,
  tokenizer: Tokenizer,
  geometry: ImageGeometry,
  capacity: Capacity,
  *,
  rows: int,
  dropout: Dropout = _NO_DROPOUT,
) -> PackedBatch:
  """Packs `rows` rows of blank slices.

  Args:
    mixture: tasks, wordings and routes; no routes = the paper's 22. Tasks that
      are not built from pairs are left out, since they read files.
    tokenizer, geometry, capacity: see `input.packing`.
    rows: number of rows.
    dropout: condition dropout of synthesis.

  Raises:
    ExampleTooLarge: an example exceeds the capacity.
  """
  pool = mixture.pool(_cases(routes_named(mixture.routes) or ROUTES))
  shares = mixture.tasks
  tasks = {t: shares[t] for t in task_names(shares) if TASKS[t].build}
  for task in tasks:
    check_longest(TASKS[task], pool, tokenizer, geometry, capacity)

  def source(task: str):
    weights = mixture.weights_of(TASKS[task])
    return lambda seed: example_dataset(
      pool, TASKS[task], seed=seed, route_weights=weights
    ).map(_blank)

  dataset = train_dataset(
    None,
    'train',
    tokenizer,
    geometry,
    capacity,
    Mixture(tasks, sources={task: source(task) for task in tasks}),
    rows=rows,
    seed=0,
    dropout=dropout,
    threads=1,
  )
  return next(iter(dataset))


def sample_rows_of(run: BagelRun, *, rows: int) -> PackedBatch:
  """Packs `rows` rows like those that a run trains on."""
  return sample_rows(
    run.mixture,
    run.tokenizer,
    run.geometry,
    run.capacity,
    rows=rows,
    dropout=run.dropout,
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
