"""The jobs of the plan: data, trainings and evaluations of every cell."""

from __future__ import annotations

import dataclasses
import functools
import importlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from projects.ablations.equal_compute import step_operations, steps_for
from projects.ablations.jobs import Job
from projects.ablations.plan import ARMS, REGIMES

_CONFIGS = 'projects.ablations.configs'
_SCORES = 'drift,control,direction'
# Rows of a model with 64 ViT tokens per slice: two questions of TIA, or one
# other; a pair to synthesise.
_CAPACITY = {
  'desk': {
    'gau': {'capacity.und': 400, 'capacity.vit': 320},
    'ucg': {'capacity.und': 84, 'capacity.vit': 64},
    'joint': {'capacity.und': 484, 'capacity.vit': 384},
  },
  'small': {'gau': {}, 'ucg': {}, 'joint': {}},
}


@dataclasses.dataclass(frozen=True)
class Settings:
  """What all jobs share.

  Attributes:
    root: folder of all runs.
    store: slice store of the phantoms.
    phantoms: folder of the phantoms.
    subjects: phantoms per cohort.
    stage1, stage2: steps of the stages.
    slices: slices per case to evaluate.
    questions: questions per task.
  """

  root: Path
  store: Path
  phantoms: Path
  subjects: int
  stage1: int
  stage2: int
  slices: int
  questions: int

  def start(self, model: str) -> str:
    """The weights that the first stage of a model starts from."""
    return 'weights/small' if model == 'small' else str(self.root / model)

  def cell(self, regime: str, seed: str, arm: str) -> Path:
    """The folder of the results of a cell."""
    return self.root / regime / seed / arm

  def trained(self, regime: str, seed: str, arm: str) -> Path:
    """The workdir of a training; `regime` is 'stage1' for a Stage I."""
    return self.root / 'trained' / regime / seed / arm


def plan_jobs(
  settings: Settings,
  regimes: Mapping[str, Sequence[str]],
  seeds: Sequence[str],
) -> list[Job]:
  """Every job of the plan, after those that it needs, seed by seed.

  Args:
    settings: what they share.
    regimes: name -> names of its arms.
    seeds: random seeds.
  """
  jobs: dict[str, Job] = {}
  for job in _data(settings):
    jobs[job.name] = job
  for seed in seeds:
    for regime, arms in regimes.items():
      for arm in arms:
        for job in _cell(settings, regime, seed, arm):
          jobs.setdefault(job.name, job)
  return list(jobs.values())


def _data(settings: Settings) -> Iterator[Job]:
  """The store, the questions of ordinary VQA, the start of `desk`."""
  yield Job(
    'store',
    'synermedgen_jax.prepare',
    (
      '--dataset=phantom',
      f'--root={settings.phantoms}',
      f'--subjects={settings.subjects}',
      '--canvas=64',
      '--frame=body',
      '--most_offset=0',
      f'--store={settings.store}',
    ),
  )
  yield Job(
    'vqa',
    'projects.ablations.phantom_vqa',
    (
      f'--store={settings.store}',
      f'--phantoms={settings.phantoms}',
      f'--output={settings.root / "vqa"}',
    ),
    ('store',),
  )
  yield Job(
    'desk',
    'projects.ablations.desk_start',
    (f'--output={settings.root / "desk"}',),
  )


def _cell(
  settings: Settings, regime: str, seed: str, arm: str
) -> Iterator[Job]:
  """The trainings of a cell, and its evaluation."""
  row, way = ARMS[arm], REGIMES[regime]
  needs, start = ('store', way.model), settings.start(way.model)
  if way.model == 'small':
    needs = ('store',)
  if row.first:
    suffix = '' if way.model == 'desk' else f'_{way.model}'
    job = _stage1(settings, seed, way.model, row.first, suffix, needs)
    yield job
    needs, start = (job.name,), str(job.workdir)
  if row.second:
    job = _stage2(settings, way.trained_as or regime, seed, arm, start, needs)
    yield job
    needs, start = (job.name,), str(job.workdir)
  yield _evaluation(settings, regime, seed, arm, start, needs)


def _stage1(settings, seed, model, config, suffix, needs) -> Job:
  values: dict[str, object] = {}
  if config == 'stage1_vqa':
    needs = (*needs, 'vqa')
    for key, split in (('vlm', 'train'), ('val_vlm', 'val')):
      path = settings.root / 'vqa' / split / 'vlm.jsonl'
      values[f'bagel_files.{key}'] = str(path)
  return _training(
    settings,
    f'{seed}/{config}{suffix}',
    config,
    values,
    settings.trained('stage1', seed, f'{config}{suffix}'),
    model=model,
    seed=seed,
    start=settings.start(model),
    steps=settings.stage1,
    needs=needs,
  )


def _stage2(settings, regime, seed, arm, start, needs) -> Job:
  row, way = ARMS[arm], REGIMES[regime]
  config = way.stage2 if row.second == 'stage2' else row.second
  steps = settings.stage2
  if row.steps == 'operations':  # those of Stage I and II
    budget = settings.stage1 * operations('stage1', way.model)
    budget += settings.stage2 * operations(way.stage2, way.model)
    steps = steps_for(budget, operations(config, way.model))
  return _training(
    settings,
    f'{seed}/{regime}/{arm}',
    config,
    way.train,
    settings.trained(regime, seed, arm),
    model=way.model,
    seed=seed,
    start=start,
    steps=steps,
    needs=needs,
  )


def _training(
  settings: Settings,
  name: str,
  config: str,
  values: Mapping[str, object],
  workdir: Path,
  *,
  model: str,
  seed: str,
  start: str,
  steps: int,
  needs: Sequence[str],
) -> Job:
  values = {
    'model': model,
    **_CAPACITY[model][config_of(config).stage],
    **values,
    'store': str(settings.store),
    'init_from': start,
    'seed': int(seed),
    'steps': steps,
    'val_every': 0,
  }
  return Job(
    f'train/{name}',
    'synermedgen_jax.main',
    (
      f'--config=projects/ablations/configs/{config}.py',
      *_flags(values),
      f'--workdir={workdir}',
    ),
    tuple(needs),
    steps,
    steps * operations(config, model),
  )


def _evaluation(settings, regime, seed, arm, start, needs) -> Job:
  way = REGIMES[regime]
  values = {
    'model': way.model,
    'init_from': start,
    'store': str(settings.store),
    **_CAPACITY[way.model]['ucg'],
    **{f'sampling.{key}': value for key, value in way.sampling.items()},
  }
  # `und` is frozen in Stage II, so its answers are those of Stage I.
  asks = regime in ('dropout', 'und_trained', 'coarse')
  scores = f'{_SCORES},use' if arm in ('full', 'only') else _SCORES
  return Job(
    f'evaluate/{seed}/{regime}/{arm}',
    'synermedgen_jax.evaluate',
    (
      '--config=projects/ablations/configs/stage2.py',
      *_flags(values),
      f'--workdir={settings.cell(regime, seed, arm)}',
      f'--store={settings.store}',
      f'--parts={"understanding," if asks else ""}synthesis',
      *((f'--questions={settings.questions}',) if asks else ()),
      f'--slices={settings.slices}',
      f'--adherence={scores}',
      *((f'--routes={",".join(way.routes)}',) if way.routes else ()),
    ),
    tuple(needs),
  )


def _flags(values: Mapping[str, object]) -> list[str]:
  """Flags of a config; a tuple of names is one Python literal."""
  return [
    f'--config.{key}={value!r}'
    if isinstance(value, tuple)
    else f'--config.{key}={value}'
    for key, value in values.items()
  ]


def config_of(name: str) -> ConfigDict:
  """A config of the project."""
  return importlib.import_module(f'{_CONFIGS}.{name}').get_config()


@functools.cache
def operations(name: str, model: str) -> float:
  """Floating-point operations of a step of a config with a model."""
  config = config_of(name)
  config.model = model
  config.init_from = ''
  config.update_from_flattened_dict(_CAPACITY[model][config.stage])
  return step_operations(config)
