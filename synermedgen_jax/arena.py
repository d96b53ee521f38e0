"""Trains systems under equal budgets and ranks them on the same slices.

  python -m synermedgen_jax.arena --store=runs/demo/store --run=runs/arena \\
      --systems=synermedgen:3,unet:3,pix2pix:3,cyclegan \\
      --budget=images:6000,operations:1.6e13

Prints what every system will cost, then trains and evaluates one after the
other. The same command resumes. A budget is a number of pairs of slices that a
system is trained to translate, or a number of operations of training. The pairs
of modalities of a system that is trained per pair share it, and so do the
stages of SynerMedGen that train synthesis; the table states the operations of
Stage I. Systems named as_... are variants of SynerMedGen by one setting
(docs/baselines.md).

Each budget has a folder, such as RUN/images-6000, with workdirs SEED/SYSTEM, as
`compare` reads them, and:

* arena.md, arena.json: the table of all systems, and one of all routes;
* arena.html: the same slices for all systems, one row per route.

SynerMedGen and its variants share their first stages, under all budgets, in
RUN/stages/SEED.
"""

import dataclasses
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from absl import flags
from flax.traverse_util import flatten_dict

from synermedgen_jax.config.command_line import (
  UsageError,
  local_path,
  run_command,
)
from synermedgen_jax.config.defaults import default_config, system_config
from synermedgen_jax.config.sampling import SamplingConfig
from synermedgen_jax.core import files
from synermedgen_jax.core.errors import UserError
from synermedgen_jax.evaluation.standings import standings
from synermedgen_jax.evaluation.subjects import FILE, read_subjects
from synermedgen_jax.inference.trained_system import TrainedPairs, load_system
from synermedgen_jax.inference.workdir import RunRecord, Trained
from synermedgen_jax.planning.arena import (
  OURS,
  OWN,
  ArenaError,
  Budget,
  Training,
  parse_systems,
  recipe,
  trainings,
)
from synermedgen_jax.reporting.arena_page import arena_page
from synermedgen_jax.reporting.arena_table import Entry, costs, markdown, record
from synermedgen_jax.slices.splits import SPLITS
from synermedgen_jax.slices.store import SliceStore
from synermedgen_jax.training import flops

_STORE = flags.DEFINE_string('store', None, 'Folder of the slice store.')
_RUN = flags.DEFINE_string('run', None, 'Folder of the arena.')
_SYSTEMS = flags.DEFINE_list(
  'systems',
  ['synermedgen', 'unet', 'pix2pix', 'cyclegan'],
  'Systems to train, in this order. NAME:3 has three trainings, with the seeds '
  '0, 1 and 2.',
)
_BUDGETS = flags.DEFINE_list(
  'budget',
  ['images:24000'],
  'images:NUMBER, operations:NUMBER, or several of them.',
)
_SLICES = flags.DEFINE_integer(
  'slices', 6, 'Slices per case to evaluate; 0 = all usable.', lower_bound=0
)
_CONFIGS = flags.DEFINE_string(
  'configs', 'configs/small', 'Folder with a config for each system.'
)
_SPLIT = flags.DEFINE_enum('split', 'test', SPLITS, 'Split of the subjects.')
_ANNOUNCE = flags.DEFINE_bool('announce', False, 'Print the costs and stop.')
_RATE = 50e9  # operations per second that two CPU cores reach in training
_TIMED = 16  # slices


@dataclasses.dataclass(frozen=True)
class Candidate:
  """A system with one seed: its folder and its trainings."""

  system: str
  folder: Path
  trainings: Sequence[Training]


def _budgets(run: Path) -> dict[Budget, Path]:
  """The folder of each budget."""
  try:
    budgets = [Budget.parse(text) for text in _BUDGETS.value]
  except ValueError as error:
    raise UsageError(f'--budget={error}') from None
  if not budgets:
    raise UsageError('--budget: is empty; name one, such as images:24000.')
  return {b: run / str(b).replace(':', '-') for b in budgets}


def _candidates(
  store: SliceStore, stages: Path, folder: Path, budget: Budget
) -> Iterator[Candidate]:
  for system, seeds in parse_systems(_SYSTEMS.value).items():
    for seed in range(seeds):
      workdir = folder / str(seed) / system
      try:
        parts = trainings(
          system,
          store,
          workdir,
          budget,
          stages=stages / str(seed),
          seed=seed,
          configs=_CONFIGS.value,
        )
      except UserError as error:
        raise ArenaError(
          f'--systems: {system} cannot be trained here: {error} Leave it out, '
          'or change what the message names.'
        ) from None
      yield Candidate(system, workdir, parts)


def _train(candidate: Candidate, store: SliceStore) -> None:
  """Trains and evaluates what is not finished, in processes of their own."""
  for training in candidate.trainings:
    if _steps_of(training.workdir) < training.steps:
      _call('synermedgen_jax.main', training.flags)
  if not _is_evaluated(candidate, store):
    _call(
      'synermedgen_jax.evaluate',
      [
        f'--workdir={candidate.folder}',
        f'--slices={_SLICES.value}',
        f'--split={_SPLIT.value}',
        f'--store={_STORE.value}',
        f'--routes={",".join(_routes(store))}',
      ],
    )


def _routes(store: SliceStore) -> list[str]:
  """Routes of the split that the systems are trained on.

  Raises:
    ArenaError: there is none.
  """
  trained, scored = (
    {route.name for case in store.split(split) for route in case.routes}
    for split in ('train', _SPLIT.value)
  )
  if not trained & scored:
    raise ArenaError(
      f'{store.path}: no route of its training subjects is one of the subjects '
      f'in split {_SPLIT.value!r}; choose another --split.'
    )
  return sorted(trained & scored)


def _check_same(training: Training, store: SliceStore) -> None:
  """Refuses a workdir of another config or other slices.

  A finished run is not trained on: its learning rate has come to its end.
  """
  if not (training.workdir / 'config.json').is_file():
    return
  run = RunRecord.load(training.workdir)
  if run.store_fingerprint not in (None, store.fingerprint):
    raise ArenaError(
      f'{training.workdir}: was trained on other slices than {store.path} has '
      'now; name another --run.'
    )
  system = 'scope' in training.resolved
  defaults = system_config() if system else default_config()
  # A key that is newer than the run had its default.
  there = _leaves(defaults.to_dict()) | _leaves(run.config)
  for key, value in _leaves(training.resolved).items():
    if (old := there.get(key)) != value:
      raise ArenaError(
        f'{training.workdir}: was trained with {key} {old!r}, which is '
        f'{value!r} now; name another --run.'
      )


def _leaves(config: Mapping[str, object]) -> dict[str, object]:
  """Values by dotted key, as JSON has them."""
  return flatten_dict(json.loads(json.dumps(config)), sep='.')


def _is_evaluated(candidate: Candidate, store: SliceStore) -> bool:
  """Whether the results are those of these steps, subjects and slices."""
  path = candidate.folder / FILE
  if not path.is_file():
    return False
  results = read_subjects(path)
  last = [t for t in candidate.trainings if t.workdir == candidate.folder]
  runs = sorted(last or candidate.trainings, key=lambda t: t.workdir)
  wanted = {
    'split': _SPLIT.value,
    'slices': _SLICES.value,
    'store': store.fingerprint,
    'seed': 0,
    'steps': [run.steps for run in runs],
  }
  return (
    all(results.settings.get(key) == value for key, value in wanted.items())
    and sorted(results.synthesis) == _routes(store)
    and _is_own_sampling(results.sampling, runs[0])
  )


def _is_own_sampling(sampling: Mapping[str, object], run: Training) -> bool:
  """Whether slices were sampled as the config of the run says."""
  if 'sampling' not in run.resolved:  # a baseline has no options
    return 'synthesiser' not in sampling
  own = SamplingConfig.from_config(run.resolved)
  return _leaves(sampling) == _leaves(dataclasses.asdict(own))


def _call(module: str, arguments: Sequence[str]) -> None:
  """Runs a command, and terminates it if this process is terminated."""
  print(f'\n$ python -m {module} {" ".join(arguments)}', flush=True)
  command = [sys.executable, '-m', module, *arguments]
  with subprocess.Popen(command) as process:
    try:
      status = process.wait()
    except BaseException:
      process.terminate()  # a training saves its last step
      raise
  if status:
    raise ArenaError(
      f'{module} ended with status {status}; the same command resumes.'
    )


def _steps_of(workdir: Path) -> int:
  """The newest step that a run has saved."""
  saved = (workdir / 'checkpoints').glob('*')
  return max((int(p.name) for p in saved if p.name.isdecimal()), default=0)


def _synthesis(candidate: Candidate, store: SliceStore) -> tuple[float, float]:
  """Operations and seconds per slice; the second of two runs is timed."""
  trained = load_system(candidate.folder) or Trained.load(candidate.folder)
  route, case = next(
    (route, case)
    for case in store.split(_SPLIT.value)
    for route in case.routes
    if route.name in trained.routes
  )
  volume = store.read_volume(case.id, route.source)
  sources = volume[None, case.usable.start :][:, :_TIMED]
  synthesiser = trained.synthesiser(batch_size=_TIMED)
  operations = sum(flops.count(synthesiser.traced(route)).values())
  operations /= candidate.trainings[-1].resolved.get('slab', 1)
  for _ in range(2):
    start = time.perf_counter()
    synthesiser.synthesise(route, np.asarray(sources))
  return operations, (time.perf_counter() - start) / sources.shape[1]


def _entry(candidates: Sequence[Candidate], store: SliceStore) -> Entry:
  """The facts of a system, from its first seed."""
  first = candidates[0]
  trained = load_system(first.folder)
  facts = trained or OWN[first.system]
  parts, per_pair = first.trainings, isinstance(trained, TrainedPairs)
  each, seconds = _synthesis(first, store)
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


def _write_tables(
  budget: Budget,
  folder: Path,
  candidates: Sequence[Candidate],
  store: SliceStore,
) -> None:
  """Writes the pages of a budget whose systems are evaluated."""
  systems: dict[str, list[Candidate]] = {}
  for candidate in candidates:
    systems.setdefault(candidate.system, []).append(candidate)
  runs = {
    name: {c.folder.parent.name: read_subjects(c.folder / FILE) for c in seeds}
    for name, seeds in systems.items()
  }
  reference = OURS if OURS in runs else next(iter(runs))
  table = standings(runs, reference=reference)
  entries = {name: _entry(seeds, store) for name, seeds in systems.items()}
  settings = {
    'budget': str(budget),
    'slices': _SLICES.value or 'all usable',
    'split': _SPLIT.value,
    'subjects': len(next(iter(runs[reference].values())).subjects),
    'reference': reference,
    'store': store.fingerprint,
    'configs': _CONFIGS.value,
  }
  text = markdown(table, entries, settings)
  files.write_text(folder / 'arena.md', text)
  files.write_json(folder / 'arena.json', record(table, entries, settings))
  first = {name: seeds[0].folder for name, seeds in systems.items()}
  page = folder / 'arena.html'
  files.write_text(page, arena_page(first, table, entries))
  print(f'\n{text}\n{page}')


def main() -> None:
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
  run = local_path('run', _RUN.value)
  store = SliceStore.open(_STORE.value)
  budgets = _budgets(run)
  candidates = {
    budget: list(_candidates(store, run / 'stages', folder, budget))
    for budget, folder in budgets.items()
  }
  every = [c for group in candidates.values() for c in group]
  print(costs([(c.system, c.folder, c.trainings) for c in every], _RATE))
  if _ANNOUNCE.value:
    return
  _routes(store)
  for candidate in every:
    for training in candidate.trainings:
      _check_same(training, store)
  for budget, group in candidates.items():
    for candidate in group:
      _train(candidate, store)
    _write_tables(budget, budgets[budget], group, store)


if __name__ == '__main__':
  run_command(main, required=['store', 'run'])
