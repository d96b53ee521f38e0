"""The pages of an arena, from its evaluated systems."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from synermedgen_jax.core import files
from synermedgen_jax.evaluation.standings import standings
from synermedgen_jax.evaluation.subjects import FILE, read_subjects
from synermedgen_jax.inference.trained_system import TrainedPairs, load_system
from synermedgen_jax.inference.workdir import Trained
from synermedgen_jax.planning.arena import OURS, OWN, Budget, Training, recipe
from synermedgen_jax.planning.arena_run import Arena, Candidate
from synermedgen_jax.reporting.arena_page import arena_page
from synermedgen_jax.reporting.arena_table import Entry, markdown, record
from synermedgen_jax.training import flops

_TIMED = 16  # slices


def _synthesis(arena: Arena, candidate: Candidate) -> tuple[float, float]:
  """Operations and seconds per slice; the second of two runs is timed."""
  trained = load_system(candidate.folder) or Trained.load(candidate.folder)
  route, case = next(
    (route, case)
    for case in arena.store.split(arena.split)
    for route in case.routes
    if route.name in trained.routes
  )
  volume = arena.store.read_volume(case.id, route.source)
  sources = volume[None, case.usable.start :][:, :_TIMED]
  synthesiser = trained.synthesiser(batch_size=_TIMED)
  operations = sum(flops.count(synthesiser.traced(route)).values())
  operations /= candidate.trainings[-1].resolved.get('slab', 1)
  for _ in range(2):
    start = time.perf_counter()
    synthesiser.synthesise(route, np.asarray(sources))
  return operations, (time.perf_counter() - start) / sources.shape[1]


def _entry(arena: Arena, candidates: Sequence[Candidate]) -> Entry:
  """The facts of a system, from its first seed."""
  first = candidates[0]
  trained = load_system(first.folder)
  facts = trained or OWN[first.system]
  parts, per_pair = first.trainings, isinstance(trained, TrainedPairs)
  each, seconds = _synthesis(arena, first)
  return Entry(
    system=first.system,
    title=facts.title,
    scope=trained.config['scope'] if trained else 'all',
    paired=trained.paired if trained else True,
    departures=facts.departures
    if trained
    else (*facts.departures, *recipe(parts)),
    trained=_trained_by(parts, per_pair),
    used=sum(t.used for t in (parts if per_pair else parts[-1:])),
    images=sum(t.images for t in parts),
    operations=sum(t.operations for t in parts),
    steps={t.workdir.name: t.steps for t in parts},
    slice_operations=each,
    seconds=seconds,
  )


def _trained_by(trainings: Sequence[Training], per_pair: bool) -> int:
  """Number of parameters that the trainings of a system train.

  A later stage trains the parameters of an earlier one further; each pair of
  modalities has its own.
  """
  if per_pair:
    return sum(sum(t.trained.values()) for t in trainings)
  return sum({k: v for t in trainings for k, v in t.trained.items()}.values())


def write_tables(
  arena: Arena, budget: Budget, folder: Path, candidates: Sequence[Candidate]
) -> None:
  """Writes the pages of a budget whose systems are evaluated.

  Args:
    arena: what all budgets share.
    budget: what every training used.
    folder: receives arena.md, arena.json and arena.html.
    candidates: the systems with their seeds.
  """
  systems: dict[str, list[Candidate]] = {}
  for candidate in candidates:
    systems.setdefault(candidate.system, []).append(candidate)
  runs = {
    name: {c.folder.parent.name: read_subjects(c.folder / FILE) for c in seeds}
    for name, seeds in systems.items()
  }
  reference = OURS if OURS in runs else next(iter(runs))
  table = standings(runs, reference=reference)
  entries = {name: _entry(arena, seeds) for name, seeds in systems.items()}
  settings = {
    'budget': str(budget),
    'slices': arena.slices or 'all usable',
    'split': arena.split,
    'subjects': len(next(iter(runs[reference].values())).subjects),
    'reference': reference,
    'store': arena.store.fingerprint,
    'configs': arena.configs,
  }
  text = markdown(table, entries, settings)
  files.write_text(folder / 'arena.md', text)
  files.write_json(folder / 'arena.json', record(table, entries, settings))
  first = {name: seeds[0].folder for name, seeds in systems.items()}
  page = folder / 'arena.html'
  files.write_text(page, arena_page(first, table, entries))
  print(f'\n{text}\n{page}')
