"""The trainings of an arena: what is left of them, and running it."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from flax.traverse_util import flatten_dict

from synermedgen_jax.config.defaults import default_config, system_config
from synermedgen_jax.config.sampling import SamplingConfig
from synermedgen_jax.core.errors import UserError
from synermedgen_jax.evaluation.subjects import FILE, read_subjects
from synermedgen_jax.inference.workdir import RunRecord
from synermedgen_jax.planning.arena import (
  ArenaError,
  Budget,
  Training,
  parse_systems,
  trainings,
)
from synermedgen_jax.slices.store import SliceStore


@dataclasses.dataclass(frozen=True)
class Arena:
  """What all budgets of an arena share.

  Attributes:
    store: the slice store.
    stages: folder of the shared stages.
    systems: names of systems, NAME:3 for three seeds.
    configs: folder with a config for each system.
    split: split of the scored subjects.
    slices: slices per case to evaluate; 0 = all usable.
  """

  store: SliceStore
  stages: Path
  systems: Sequence[str]
  configs: str
  split: str
  slices: int


@dataclasses.dataclass(frozen=True)
class Candidate:
  """A system with one seed: its folder and its trainings."""

  system: str
  folder: Path
  trainings: Sequence[Training]


def candidates(
  arena: Arena, folder: Path, budget: Budget
) -> Iterator[Candidate]:
  """The systems of an arena with their seeds.

  Args:
    arena: what all budgets share.
    folder: folder of the budget.
    budget: what every training may use.

  Raises:
    ArenaError: a system is unknown, or cannot be trained on the store.
  """
  for system, seeds in parse_systems(arena.systems).items():
    for seed in range(seeds):
      workdir = folder / str(seed) / system
      try:
        parts = trainings(
          system,
          arena.store,
          workdir,
          budget,
          stages=arena.stages / str(seed),
          seed=seed,
          configs=arena.configs,
        )
      except UserError as error:
        raise ArenaError(
          f'--systems: {system} cannot be trained here: {error} Leave it out, '
          'or change what the message names.'
        ) from None
      yield Candidate(system, workdir, parts)


def check(arena: Arena, candidates: Sequence[Candidate]) -> None:
  """Refuses workdirs of other configs, and splits without a common route.

  Raises:
    ArenaError: naming the workdir or the split.
  """
  _routes(arena)
  for candidate in candidates:
    for training in candidate.trainings:
      _check_same(training, arena.store)


def train(arena: Arena, candidate: Candidate) -> None:
  """Trains and evaluates what is not finished, in processes of their own.

  Raises:
    ArenaError: a process ends with an error.
  """
  for training in candidate.trainings:
    if _steps_of(training.workdir) < training.steps:
      _call('synermedgen_jax.main', training.flags)
  if not _is_evaluated(arena, candidate):
    _call(
      'synermedgen_jax.evaluate',
      [
        f'--workdir={candidate.folder}',
        f'--slices={arena.slices}',
        f'--split={arena.split}',
        f'--store={arena.store.path}',
        f'--routes={",".join(_routes(arena))}',
      ],
    )


def _routes(arena: Arena) -> list[str]:
  """Routes of the split that the systems are trained on.

  Raises:
    ArenaError: there is none.
  """
  trained, scored = (
    {route.name for case in arena.store.split(split) for route in case.routes}
    for split in ('train', arena.split)
  )
  if not trained & scored:
    raise ArenaError(
      f'{arena.store.path}: no route of its training subjects is one of the '
      f'subjects in split {arena.split!r}; choose another --split.'
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


def _is_evaluated(arena: Arena, candidate: Candidate) -> bool:
  """Whether the results are those of these steps, subjects and slices."""
  path = candidate.folder / FILE
  if not path.is_file():
    return False
  results = read_subjects(path)
  last = [t for t in candidate.trainings if t.workdir == candidate.folder]
  runs = sorted(last or candidate.trainings, key=lambda t: t.workdir)
  wanted = {
    'split': arena.split,
    'slices': arena.slices,
    'store': arena.store.fingerprint,
    'seed': 0,
    'steps': [run.steps for run in runs],
  }
  return (
    all(results.settings.get(key) == value for key, value in wanted.items())
    and sorted(results.synthesis) == _routes(arena)
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
