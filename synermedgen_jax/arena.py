"""Trains systems under one budget and ranks them on the same slices.

  python -m synermedgen_jax.arena --store=runs/demo/store --run=runs/arena \\
      --systems=synermedgen,unet,pix2pix,cyclegan --budget=images:24000

Prints what every system will cost, then trains and evaluates one after the
other. The same command resumes. The budget is a number of pairs of slices that
a system is trained to translate, or a number of operations of training, which
is shared by the stages of SynerMedGen, and by the pairs of modalities of a
system that is trained per pair. Systems named as_... are variants of
SynerMedGen by one setting (docs/baselines.md).

Workdirs are RUN/SEED/SYSTEM, as `compare` reads them. Writes:

* RUN/arena.md, RUN/arena.json: the table of all systems, and one of all routes;
* RUN/arena.html: the same slices for all systems, one row per route.
"""

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from absl import flags

from synermedgen_jax.config.command_line import (
  UsageError,
  local_path,
  run_command,
)
from synermedgen_jax.core import files
from synermedgen_jax.evaluation.standings import standings
from synermedgen_jax.evaluation.subjects import FILE, read_subjects
from synermedgen_jax.inference.trained_system import load_system
from synermedgen_jax.inference.workdir import Trained
from synermedgen_jax.planning.arena import (
  OURS,
  OWN,
  ArenaError,
  Budget,
  Training,
  known,
  trainings,
)
from synermedgen_jax.reporting.arena_page import arena_page
from synermedgen_jax.reporting.arena_table import Entry, costs, markdown, record
from synermedgen_jax.slices.store import SliceStore
from synermedgen_jax.training import flops

_STORE = flags.DEFINE_string('store', None, 'Folder of the slice store.')
_RUN = flags.DEFINE_string('run', None, 'Folder of the arena.')
_SYSTEMS = flags.DEFINE_list(
  'systems',
  ['synermedgen', 'unet', 'pix2pix', 'cyclegan'],
  'Systems to train, in this order.',
)
_BUDGET = flags.DEFINE_string(
  'budget', 'images:24000', 'images:NUMBER or operations:NUMBER.'
)
_SEEDS = flags.DEFINE_integer(
  'seeds',
  1,
  'Trainings of each system, with the seeds 0, 1, ...',
  lower_bound=1,
)
_SLICES = flags.DEFINE_integer(
  'slices', 6, 'Slices per case to evaluate; 0 = all usable.', lower_bound=0
)
_CONFIGS = flags.DEFINE_string(
  'configs', 'configs/small', 'Folder with a config for each system.'
)
_SPLIT = flags.DEFINE_string('split', 'test', 'Split of the subjects.')
_ANNOUNCE = flags.DEFINE_bool('announce', False, 'Print the costs and stop.')
_RATE = 30e9  # operations per second that two CPU cores reach in training
_TIMED = 16  # slices


@dataclasses.dataclass(frozen=True)
class Candidate:
  """A system with one seed: its folder and its trainings."""

  system: str
  folder: Path
  trainings: Sequence[Training]

  @property
  def workdir(self) -> Path:
    """What `evaluate` measures."""
    last = self.trainings[-1].workdir
    return last if self.system in OWN else self.folder


def _candidates(store: SliceStore, run: Path) -> Iterator[Candidate]:
  try:
    budget = Budget.parse(_BUDGET.value)
  except ValueError as error:
    raise UsageError(f'--budget={error}') from None
  for system in known(_SYSTEMS.value):
    for seed in range(_SEEDS.value):
      folder = run / str(seed) / system
      yield Candidate(
        system,
        folder,
        trainings(
          system, store, folder, budget, seed=seed, configs=_CONFIGS.value
        ),
      )


def _train(candidate: Candidate, store: SliceStore) -> None:
  """Trains what is not finished, each run in a process of its own."""
  for training in candidate.trainings:
    _check_same(training)
    if _steps_of(training.workdir) < training.steps:
      _call('synermedgen_jax.main', training.flags)
  if not _is_evaluated(candidate, store):
    _call(
      'synermedgen_jax.evaluate',
      [
        f'--workdir={candidate.workdir}',
        f'--slices={_SLICES.value}',
        f'--split={_SPLIT.value}',
        f'--store={_STORE.value}',
      ],
    )
    if candidate.workdir != candidate.folder:
      # `compare` reads the results in the folder of the system.
      link = candidate.folder / 'evaluation'
      link.unlink(missing_ok=True)
      link.symlink_to(Path(candidate.workdir.name, 'evaluation'))


def _check_same(training: Training) -> None:
  """Refuses a workdir that was trained for another budget or on other data.

  A finished run is not trained on: its learning rate has come to its end.
  """
  path = training.workdir / 'config.json'
  if not path.is_file():
    return
  config = json.loads(path.read_bytes())['config']
  wanted = {**training.overrides, 'steps': training.steps}
  for key, value in wanted.items():
    there = config[key]
    if isinstance(value, tuple):
      there = tuple(there)
    if there != value:
      raise ArenaError(
        f'{training.workdir}: was trained with {key} {there!r}, which is '
        f'{value!r} now; name another --run.'
      )


def _is_evaluated(candidate: Candidate, store: SliceStore) -> bool:
  """Whether the results are those of these subjects and slices."""
  path = candidate.folder / FILE
  if not path.is_file():
    return False
  settings = read_subjects(path).settings
  wanted = {
    'split': _SPLIT.value,
    'slices': _SLICES.value,
    'store': store.fingerprint,
  }
  return all(settings[key] == value for key, value in wanted.items())


def _call(module: str, arguments: Sequence[str]) -> None:
  print(f'\n$ python -m {module} {" ".join(arguments)}', flush=True)
  done = subprocess.run([sys.executable, '-m', module, *arguments], check=False)
  if done.returncode:
    raise ArenaError(
      f'{module} ended with status {done.returncode}; the same command resumes.'
    )


def _steps_of(workdir: Path) -> int:
  """The newest step that a run has saved."""
  saved = (workdir / 'checkpoints').glob('*')
  return max((int(p.name) for p in saved if p.name.isdecimal()), default=0)


def _synthesis(candidate: Candidate, store: SliceStore) -> tuple[float, float]:
  """Operations and seconds per slice; the second of two runs is timed."""
  trained = load_system(candidate.workdir) or Trained.load(candidate.workdir)
  case = store.split(_SPLIT.value)[0]
  route = next(r for r in case.routes if r.name in trained.routes)
  volume = store.read_volume(case.id, route.source)
  slices = volume[case.usable.start :][:_TIMED]
  synthesiser = trained.synthesiser(batch_size=_TIMED)
  operations = sum(flops.count(synthesiser.traced(route)).values())
  for _ in range(2):
    start = time.perf_counter()
    synthesiser.synthesise(route, np.asarray(slices))
  return operations, (time.perf_counter() - start) / len(slices)


def _entry(candidates: Sequence[Candidate], store: SliceStore) -> Entry:
  """The facts of a system, from its first seed."""
  first = candidates[0]
  trained = load_system(first.workdir)
  facts = trained or OWN[first.system]
  parts = first.trainings
  each, seconds = _synthesis(first, store)
  return Entry(
    system=first.system,
    title=facts.title,
    scope=trained.config['scope'] if trained else 'all',
    paired=trained.paired if trained else True,
    departures=facts.departures,
    trained=sum({t.config: t.trained * len(parts) for t in parts}.values())
    if trained
    else max(t.trained for t in parts),
    used=sum(t.used for t in parts) if trained else parts[-1].used,
    images=sum(t.images for t in parts),
    operations=sum(t.operations for t in parts),
    slice_operations=each,
    seconds=seconds,
  )


def main() -> None:
  run = local_path('run', _RUN.value)
  store = SliceStore.open(_STORE.value)
  candidates = list(_candidates(store, run))
  print(costs([(c.system, c.folder, c.trainings) for c in candidates], _RATE))
  if _ANNOUNCE.value:
    return
  for candidate in candidates:
    _train(candidate, store)
  by_system = {
    system: [c for c in candidates if c.system == system]
    for system in known(_SYSTEMS.value)
  }
  runs = {
    system: {
      c.folder.parent.name: read_subjects(c.folder / FILE) for c in group
    }
    for system, group in by_system.items()
  }
  reference = OURS if OURS in runs else next(iter(runs))
  table = standings(runs, reference=reference)
  entries = {s: _entry(group, store) for s, group in by_system.items()}
  settings = {
    'budget': _BUDGET.value,
    'seeds': _SEEDS.value,
    'slices': _SLICES.value or 'all usable',
    'split': _SPLIT.value,
    'subjects': len(next(iter(runs[reference].values())).subjects),
    'reference': reference,
  }
  text = markdown(table, entries, settings)
  files.write_text(run / 'arena.md', text)
  files.write_json(run / 'arena.json', record(table, entries, settings))
  files.write_text(
    run / 'arena.html',
    arena_page({s: g[0].folder for s, g in by_system.items()}, table, entries),
  )
  print(f'\n{text}\n{run / "arena.html"}')


if __name__ == '__main__':
  run_command(main, required=['store', 'run'])
