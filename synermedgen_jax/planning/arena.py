"""The trainings of an arena: which systems, on which routes, for how long."""

from __future__ import annotations

import dataclasses
import math
import runpy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import jax
from ml_collections import ConfigDict

from synermedgen_jax.baselines.registry import SYSTEMS
from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.modalities import routes_named
from synermedgen_jax.slices.store import SliceStore
from synermedgen_jax.training import flops
from synermedgen_jax.training.build import build
from synermedgen_jax.training.loop import BagelRun, Run, make_train_step
from synermedgen_jax.training.objectives import OBJECTIVES

OURS = 'synermedgen'


class ArenaError(UserError):
  """An arena that cannot run; one line that says what to change."""


@dataclasses.dataclass(frozen=True)
class Own:
  """A system made of this library's stages: SynerMedGen, or a variant of it.

  Attributes:
    title: name in tables.
    stages: config -> share of what the stages before it leave of the budget,
      in the order of training; None = the length of the config. Stage I, which
      trains no synthesis, does not count.
    departures: differences from the programs that the title compares it with.
  """

  title: str
  stages: Mapping[str, float | None]
  departures: tuple[str, ...] = ()


_OF_CODES = (
  'SynerMedGen with codes: experts, ViT and stages are those of SynerMedGen, '
  'the codes those of its autoencoder',
  'quantiser and head of codes start from random weights, `gen` from one that '
  'was pretrained with a flow',
  'the source is an image of latents, not of codes',
  'the most probable codes, without a draw',
)
OWN = {
  OURS: Own(
    'SynerMedGen (this library)',
    {'stage1': None, 'stage2_detail': 1 / 8, 'detail': 1},
    (
      'a path for detail beside the transformer, config.detail, whose draws '
      'are averaged',
    ),
  ),
  'without_detail': Own(
    'SynerMedGen without the detail path', {'stage1': None, 'stage2': 1}
  ),
  'as_janusflow': Own(
    'dense rectified flow (as JanusFlow, Show-o2)',
    {'stage1': None, 'as_janusflow': 1},
    (
      'SynerMedGen with shared experts: ViT, autoencoder, flow and stages are '
      'those of SynerMedGen',
      'starts without the pretrained `gen` that SynerMedGen starts from',
    ),
  ),
  'as_showo': Own(
    'masked discrete diffusion (as Show-o)',
    {'stage1': None, 'quantiser': None, 'as_showo': 1},
    _OF_CODES,
  ),
  'as_januspro': Own(
    'autoregressive codes (as Janus-Pro)',
    {'stage1': None, 'quantiser': None, 'as_januspro': 1},
    _OF_CODES,
  ),
}


@dataclasses.dataclass(frozen=True)
class Budget:
  """What every system may use, over all of its routes and stages.

  Attributes:
    kind: 'images' (pairs of slices that a system translates in training) or
      'operations' (of training, two per multiplication and addition).
    amount: their number.
  """

  kind: Literal['images', 'operations']
  amount: float

  def times(self, share: float) -> Budget:
    """A share of the budget."""
    return dataclasses.replace(self, amount=self.amount * share)

  @classmethod
  def parse(cls, text: str) -> Budget:
    """Reads 'images:24000' or 'operations:1.6e13'.

    Raises:
      ValueError: it is neither.
    """
    kind, _, amount = text.partition(':')
    try:
      number = float(amount)
    except ValueError:
      number = math.nan
    if kind not in ('images', 'operations') or not 0 < number < math.inf:
      raise ValueError(
        f'{text!r}: expected images:NUMBER or operations:NUMBER.'
      )
    return cls(kind, number)

  def __str__(self) -> str:
    """The shortest text that `parse` reads as this budget."""
    mantissa, exponent = f'{self.amount:.11e}'.split('e')
    if self.kind == 'images' or int(exponent) < 6:
      return f'{self.kind}:{self.amount:.12g}'.replace('e+', 'e')
    return f'{self.kind}:{mantissa.rstrip("0").rstrip(".")}e{int(exponent)}'


@dataclasses.dataclass(frozen=True)
class Training:
  """One run of `main` for a system.

  Attributes:
    config: file of the config.
    overrides: values that differ from the file.
    workdir: folder of the run.
    steps: length.
    images: pairs of slices that it translates in training.
    operations: of all steps.
    understanding: it trains understanding alone, outside of the budget.
    trained: parameters that it trains, and their sizes.
    used: number of parameters that synthesis uses.
    resolved: config of the run, as in its `config.json`.
  """

  config: str
  overrides: dict[str, object]
  workdir: Path
  steps: int
  images: float
  operations: float
  understanding: bool
  trained: Mapping[str, int]
  used: int
  resolved: Mapping[str, object]

  @property
  def flags(self) -> list[str]:
    """The flags of `main`."""
    return [
      f'--config={self.config}',
      *(f'--config.{key}={value}' for key, value in self.overrides.items()),
      f'--config.steps={self.steps}',
      f'--workdir={self.workdir}',
    ]


def trainings(
  system: str,
  store: SliceStore,
  folder: Path,
  budget: Budget,
  *,
  stages: Path,
  seed: int,
  configs: str = 'configs/small',
) -> list[Training]:
  """The trainings of a system, in order.

  A system of pairs is trained on each pair of the store, with an equal share of
  the budget. Stage I and the quantiser are as long as their configs say; the
  quantiser counts towards the budget. Nothing is validated on a store without
  validation subjects.

  Args:
    system: a name of `baselines.registry.SYSTEMS`, or of `OWN`.
    store: the slices.
    folder: of the system's runs; of its last stage, if it has several.
    budget: what the system may use.
    stages: folder of the stages with the length of their config, which
      SynerMedGen and its variants share, under any budget.
    seed: random seed.
    configs: folder of the configs.

  Raises:
    ArenaError: the budget is used up before the system translates an image.
  """
  shared = {'store': store.path, 'seed': seed}
  if not store.split('val'):
    shared['val_every'] = 0
  if system in OWN:
    return _stages(OWN[system].stages, stages, folder, budget, shared, configs)
  file = f'{configs}/{system}.py'
  if SYSTEMS[system].pair:
    pairs = list(_pairs(store))
    share = budget.times(1 / len(pairs))
    return [
      _sized(file, shared | {'routes': routes}, folder / routes[0], share)
      for routes in pairs
    ]
  return list(_one_after_the_other(system, file, shared, folder, budget))


def _one_after_the_other(
  system: str, file: str, shared: dict, folder: Path, budget: Budget
) -> Iterator[Training]:
  """The stages of a system; the last one has the system's folder."""
  start: dict[str, object] = {}
  for suffix, share in SYSTEMS[system].stages.items():
    workdir = folder / suffix.removeprefix('_') if suffix else folder
    model = {'model': f'{_config(file).model}{suffix}'} if suffix else {}
    yield _sized(
      file,
      shared | model | start,
      workdir,
      budget.times(share),
      # The shape is known before the earlier stage has run.
      {'init_from': ''} if start else None,
    )
    start = {'init_from': str(workdir)}


def _pairs(store: SliceStore) -> Iterator[tuple[str, str]]:
  """The two directions of every pair of modalities of the store."""
  routes = {r for case in store.split('train') for r in case.routes}
  for route in sorted(routes, key=lambda r: r.name):
    if route.name < route.reverse.name:
      yield route.name, route.reverse.name


def _stages(
  names: Mapping[str, float | None],
  stages: Path,
  folder: Path,
  budget: Budget,
  shared: dict,
  configs: str,
) -> list[Training]:
  """One stage after the other; each starts from the one before it."""
  *_, last = names
  parts, start, build_with = [], {}, {}
  for name, share in names.items():
    file, overrides = f'{configs}/{name}.py', shared | start
    if share is None:
      workdir = stages / name
      part = _training(file, overrides, workdir, None, build_with)
      if 'flow' not in OBJECTIVES[part.resolved['stage']].terms:
        part = dataclasses.replace(part, images=0.0)  # translates none
    elif budget.amount <= 0:
      raise ArenaError(
        f'--budget: {", ".join(p.workdir.name for p in parts)} use up the '
        f'{budget.kind} before {name} starts; name a larger budget.'
      )
    else:
      workdir = folder if name == last else folder / name
      left = budget.times(share)
      part = _sized(file, overrides, workdir, left, build_with)
    parts.append(part)
    if not part.understanding:
      used = part.images if budget.kind == 'images' else part.operations
      budget = dataclasses.replace(budget, amount=budget.amount - used)
    start = {'init_from': str(workdir)}
    # The shape is known before the stage has run.
    build_with = {'init_from': '', 'from_scratch': True}
  return parts


def _sized(
  file: str, overrides: dict, workdir: Path, budget: Budget, build_with=None
) -> Training:
  one = _training(file, overrides, workdir, 1, build_with)
  each = one.images if budget.kind == 'images' else one.operations
  steps = int(budget.amount // each)
  if steps < 1:
    raise ArenaError(
      f'--budget: {workdir} needs {each:.3g} {budget.kind} for its first step, '
      f'and {budget.amount:.3g} are left.'
    )
  return dataclasses.replace(
    one,
    steps=steps,
    images=steps * one.images,
    operations=steps * one.operations,
    resolved={**one.resolved, 'steps': steps},
  )


def _training(
  file: str, overrides: dict, workdir: Path, steps: int | None, build_with=None
) -> Training:
  """A training of `steps` steps, by default as long as its config says."""
  config = _config(file)
  with config.unlocked():
    config.update(overrides)
  _check_sources(file, config)
  steps = steps or config.steps
  planned = config.copy_and_resolve_references()
  planned.update(val_every=0, **(build_with or {}))
  run = build(planned)
  own = {k: config[k] for k in ('val_every', *(build_with or {}))}
  images, used = _pairs_per_step(run), run.state.trainable | run.state.frozen
  if not isinstance(run, BagelRun):
    used = {
      name: x
      for name, x in used.items()
      if name.split('/')[0] in run.model.used
    }
  return Training(
    config=file,
    overrides=overrides,
    workdir=workdir,
    steps=steps,
    images=steps * images,
    operations=steps * _operations(run),
    understanding=set(OBJECTIVES[run.step.stage].terms) == {'ntp'},
    trained={n: math.prod(x.shape) for n, x in run.state.trainable.items()},
    used=sum(math.prod(x.shape) for x in used.values()),
    resolved=run.config | own | {'steps': steps},
  )


def recipe(stages: Sequence[Training]) -> tuple[str, ...]:
  """What a reader has to know of the trainings of SynerMedGen or a variant."""
  first, last = stages[0].resolved, stages[-1].resolved
  beside = sum(s.operations for s in stages if s.understanding)
  weighed = 'routes are weighed by config.route_weights'
  return (
    f'preset {last["model"]}: starts from {first["init_from"]}, '
    f'{last["optimizer"]}, rate {last["learning_rate"]:g}, '
    f'{last["rows"]} rows a step',
    f'Stage I is not part of the budget: {beside / 1e12:.1f} TFLOP more',
    *([weighed] if last['route_weights'] else []),
  )


def _config(file: str) -> ConfigDict:
  return runpy.run_path(file)['get_config']()


def _check_sources(file: str, config: ConfigDict) -> None:
  """Refuses several sources: budgets count pairs of slices."""
  counts = [len(route.sources) for route in routes_named(config.routes)]
  most = max([*counts, config.get('max_sources', 1)])
  if most > 1:
    raise ArenaError(
      f'{file}: an arena compares systems that translate from one source, and '
      f'config.max_sources or config.routes allow {most}.'
    )


def _pairs_per_step(run: Run) -> float:
  if isinstance(run, BagelRun):
    return run.rows * run.capacity.images / 2
  return run.rows * (2.0 if run.model.pair else 1.0)  # both directions


def _operations(run: Run) -> float:
  """Operations of a training step."""
  batch = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), next(iter(run.data))
  )
  if isinstance(run, BagelRun):
    shares = flops.needed_shares(next(iter(run.data)))
    return sum(
      flops.step_flops(
        run.model, run.tx, run.step, run.state, batch, shares
      ).values()
    )
  step = make_train_step(run.model, run.tx, run.step)
  return sum(flops.count(jax.make_jaxpr(step)(run.state, batch)).values())


def parse_systems(texts: Sequence[str]) -> dict[str, int]:
  """Reads NAME or NAME:SEEDS; returns the number of seeds of each system.

  Raises:
    ArenaError: a name is unknown or repeated, or a number of seeds is not a
      positive integer.
  """
  every, systems = [*OWN, *SYSTEMS], {}
  if not texts:
    raise ArenaError(f'--systems: is empty; name some of {", ".join(every)}.')
  for text in texts:
    name, colon, seeds = text.partition(':')
    if name not in every:
      raise ArenaError(
        f'--systems: unknown {name}; expected some of {", ".join(every)}.'
      )
    if name in systems:
      raise ArenaError(f'--systems: {name} is named twice.')
    if colon and not (seeds.isdecimal() and int(seeds)):
      raise ArenaError(
        f'--systems: {text}: expected a number of seeds, as in {name}:3.'
      )
    systems[name] = int(seeds) if colon else 1
  return systems
