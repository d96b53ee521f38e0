"""The train state, the compiled step, and the one loop of every stage."""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tensorboardX import SummaryWriter
from tqdm import tqdm

from synermedgen_jax.core.batch import PackedBatch
from synermedgen_jax.core.sharding import (
  LOGICAL_RULES,
  batch_sharding,
  param_shardings,
)
from synermedgen_jax.models.bagel import Bagel, BagelConfig, init_params
from synermedgen_jax.training import checkpoints as ckpt
from synermedgen_jax.training.objectives import (
  OBJECTIVES,
  ObjectiveConfig,
  total,
)
from synermedgen_jax.training.optim import Flat, flatten, unflatten
from synermedgen_jax.training.preemption import Preempted, listening


@flax.struct.dataclass
class TrainState:
  """All that changes while training, and the frozen constants.

  Attributes:
    step: updates done.
    trainable: float32 parameters that are differentiated.
    frozen: the others, in the compute dtype, without optimiser state.
    opt_state: the optimiser's.
    ema: averaged copy of `trainable`; empty where the run keeps none.
  """

  step: jax.Array
  trainable: Flat
  frozen: Flat
  opt_state: Any
  ema: Flat

  @property
  def params(self):
    """The whole model, nested."""
    return unflatten({**self.trainable, **self.frozen})


def create_state(
  model: BagelConfig,
  scales: Mapping[str, float],
  tx: optax.GradientTransformation,
  mesh: Mesh,
  *,
  seed: int,
  ema: bool,
  initial: Any = None,
) -> tuple[TrainState, Any]:
  """A fresh state on the mesh, and the shardings of its leaves.

  Args:
    model: the model's shape.
    scales: learning-rate multiplier per parameter; 0 = frozen.
    tx: the optimiser, over the trainable parameters.
    mesh: where it lives.
    seed: of the initialisation.
    ema: keep an averaged copy.
    initial: nested parameters to start from instead of random ones.
  """
  create = functools.partial(_state_of, model, scales, tx, ema)
  abstract = abstract_state(model, scales, tx, mesh, ema=ema)
  shardings = jax.tree.map(lambda x: x.sharding, abstract)
  with jax.set_mesh(mesh), nn.logical_axis_rules(LOGICAL_RULES):
    if initial is None:
      init = jax.jit(
        lambda key: create(init_params(model, key)), out_shardings=shardings
      )
      return init(jax.random.key(seed)), shardings
    return jax.jit(create, out_shardings=shardings)(initial), shardings


def abstract_state(
  model: BagelConfig,
  scales: Mapping[str, float],
  tx: optax.GradientTransformation,
  mesh: Mesh,
  *,
  ema: bool,
) -> TrainState:
  """The shapes of a state's leaves and how they lie on the mesh."""
  params = jax.eval_shape(
    functools.partial(init_params, model), jax.random.key(0)
  )
  by_name = flatten(param_shardings(params, mesh))
  replicated = NamedSharding(mesh, PartitionSpec())
  shapes = jax.eval_shape(
    functools.partial(_state_of, model, scales, tx, ema), params
  )
  return jax.tree_util.tree_map_with_path(
    # Moments and averages are laid out as the parameter they belong to.
    lambda path, x: jax.ShapeDtypeStruct(
      x.shape,
      x.dtype,
      sharding=by_name.get(getattr(path[-1], 'key', None), replicated),
    ),
    shapes,
  )


def _state_of(model: BagelConfig, scales, tx, ema: bool, params) -> TrainState:
  """The state that training starts from, with these parameters."""
  flat = flatten(nn.unbox(params))
  trainable = {
    n: x.astype(jnp.float32) for n, x in flat.items() if scales[n] > 0
  }
  frozen = {n: x.astype(model.dtype) for n, x in flat.items() if scales[n] == 0}
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    trainable=trainable,
    frozen=frozen,
    opt_state=tx.init(trainable),
    # A copy: the step donates its buffers one by one.
    ema=jax.tree.map(jnp.copy, trainable) if ema else {},
  )


@dataclasses.dataclass(frozen=True)
class StepConfig:
  """What the compiled step needs to know."""

  stage: str
  objective: ObjectiveConfig
  ema_decay: float = 0.0
  seed: int = 0


def make_train_step(
  model: BagelConfig, tx: optax.GradientTransformation, config: StepConfig
) -> Callable[[TrainState, PackedBatch], tuple[TrainState, dict]]:
  """The update: (state, batch) -> (state, {term: (sum, count)})."""
  loss = _loss_function(model, config)

  def step(state: TrainState, batch: PackedBatch):
    key = jax.random.fold_in(jax.random.key(config.seed), state.step)
    grads, sums = jax.grad(loss, has_aux=True)(
      state.trainable, state.frozen, batch, key
    )
    updates, opt_state = tx.update(grads, state.opt_state, state.trainable)
    trainable = optax.apply_updates(state.trainable, updates)
    ema = state.ema
    if ema:
      # A young average follows closely; later it settles at `ema_decay`.
      age = state.step.astype(jnp.float32)
      decay = jnp.minimum(config.ema_decay, (1 + age) / (10 + age))
      ema = optax.incremental_update(trainable, ema, 1 - decay)
    sums['grad_norm'] = (optax.tree.norm(grads), jnp.ones(()))
    return state.replace(
      step=state.step + 1, trainable=trainable, opt_state=opt_state, ema=ema
    ), sums

  return step


def make_eval_step(model: BagelConfig, config: StepConfig):
  """The losses of a batch under fixed noise, no update."""
  loss = _loss_function(model, config)

  def step(state: TrainState, batch: PackedBatch, index: jax.Array):
    key = jax.random.fold_in(jax.random.key(config.seed + 1), index)
    trainable = state.ema or state.trainable
    return loss(trainable, state.frozen, batch, key)[1]

  return step


def _loss_function(model: BagelConfig, config: StepConfig):
  module = Bagel(model)
  objective = OBJECTIVES[config.stage]

  def loss(trainable, frozen, batch, key):
    params = unflatten({**trainable, **frozen})
    sums = objective(module, params, batch, key, config.objective)
    value = total(sums, config.objective)
    for name, layout in (('und', batch.und), ('gen', batch.gen)):
      used = (layout.example_ids > 0).sum().astype(jnp.float32)
      sums[f'fill/{name}'] = (used, jnp.float32(layout.example_ids.size))
    return value, {'loss': (value, jnp.ones(())), **sums}

  return loss


class Meter:
  """Adds up sums and counts of several steps; means on demand."""

  def __init__(self):
    self.sums: dict[str, np.ndarray] = {}

  def add(self, sums: Mapping[str, tuple]) -> None:
    for name, (value, count) in jax.device_get(sums).items():
      self.sums[name] = self.sums.get(name, 0.0) + np.array([value, count])

  def means(self) -> dict[str, float]:
    """The mean of every term that occurred, and a fresh start."""
    out = {
      name: float(value / count)
      for name, (value, count) in self.sums.items()
      if count > 0
    }
    self.sums = {}
    return out


class Clock:
  """Where the time between two rows of metrics goes."""

  def __init__(self, now: Callable[[], float] = time.perf_counter):
    self._now = now
    self.restart()

  def restart(self) -> None:
    self._last = self._now()
    self._steps: list[float] = []
    self._waited = 0.0

  def next(self, iterator: Iterator) -> Any:
    """The iterator's next element; the time it takes counts as waiting."""
    before = self._now()
    element = next(iterator)
    self._waited += self._now() - before
    return element

  def step_ends(self) -> None:
    now = self._now()
    self._steps.append(now - self._last)
    self._last = now

  def row(self) -> dict[str, float]:
    """What the steps since the start took.

    Steps are timed on the host, which is at most one ahead of the device.
    `data_wait` is the share of the time that the data were waited for.
    """
    elapsed = sum(self._steps)
    median, slow = np.percentile(self._steps, (50, 95))
    return {
      'steps_per_second': len(self._steps) / elapsed,
      'step_seconds/p50': float(median),
      'step_seconds/p95': float(slow),
      'data_wait': self._waited / elapsed,
    }


class MetricsLog:
  """Writes metrics to `metrics.jsonl` and TensorBoard."""

  def __init__(self, workdir: Path, start: int):
    self.path = workdir / 'metrics.jsonl'
    self._forget_after(start)
    self.file = self.path.open('a')
    self.tensorboard = SummaryWriter(
      str(workdir / 'tensorboard'), purge_step=start + 1
    )

  def _forget_after(self, step: int) -> None:
    """A resumed run writes again what came after its checkpoint."""
    if self.path.exists():
      rows = [
        line
        for line in self.path.read_text().splitlines()
        if _step_of(line) <= step
      ]
      partial = self.path.with_name(f'.{self.path.name}.partial')
      partial.write_text(''.join(f'{line}\n' for line in rows))
      partial.replace(self.path)

  def write(self, step: int, values: Mapping[str, float]) -> None:
    self.file.write(json.dumps({'step': step, **values}) + '\n')
    self.file.flush()
    for name, value in values.items():
      self.tensorboard.add_scalar(name, value, step)

  def close(self) -> None:
    self.file.close()
    self.tensorboard.close()


def _step_of(line: str) -> float:
  """The step of a row of metrics; infinite for one cut off by a crash."""
  try:
    return json.loads(line)['step']
  except ValueError:
    return float('inf')


@dataclasses.dataclass(frozen=True)
class LoopConfig:
  """How long, how often, where."""

  steps: int
  log_every: int = 50
  checkpoint_every: int = 1000
  val_every: int = 0  # 0 = never
  keep: int = 2
  keep_every: int = 0  # 0 = the newest `keep` alone

  def validates(self, step: int) -> bool:
    return self.val_every > 0 and self._due(step, self.val_every)

  def saves(self, step: int) -> bool:
    return self._due(step, self.checkpoint_every)

  def logs(self, step: int) -> bool:
    """A row ends at every checkpoint, so a resumed run begins a fresh one."""
    return (
      self._due(step, self.log_every)
      or self.validates(step)
      or self.saves(step)
    )

  def _due(self, step: int, every: int) -> bool:
    return step % every == 0 or step == self.steps


def train(
  workdir: Path,
  model: BagelConfig,
  state: TrainState,
  shardings: TrainState,
  tx: optax.GradientTransformation,
  mesh: Mesh,
  data: Any,
  val_batches: list[PackedBatch],
  step_config: StepConfig,
  config: LoopConfig,
  *,
  begin: Callable[[], None] = lambda: None,
  finish: Callable[[TrainState], TrainState] = lambda state: state,
  name: str = 'train',
) -> TrainState:
  """Trains to `config.steps`, resuming from the workdir's checkpoint.

  Args:
    workdir: receives `checkpoints/`, `metrics.jsonl`, `tensorboard/`.
    model: the model's shape.
    state, shardings: from `create_state`.
    tx: the optimiser.
    mesh: the devices.
    data: an iterable of host batches with Grain's iterator state.
    val_batches: host batches for validation losses.
    step_config: the step's constants.
    config: the loop's.
    begin: called once a checkpoint, if there is one, turned out to fit.
    finish: a last change to the state before the last save.
    name: shown on the progress bar.

  Returns:
    The final state.

  Raises:
    Preempted: SIGTERM came; the step at hand is done and saved.
    CheckpointError: there are checkpoints, and none can be resumed from.
  """
  iterator = iter(data)
  checkpoints, start, state = _resume(
    functools.partial(
      ckpt.manager,
      workdir / 'checkpoints',
      keep=config.keep,
      keep_every=config.keep_every,
    ),
    state,
    shardings,
    iterator,
  )
  begin()
  if start >= config.steps:
    checkpoints.close()
    return state

  rows = batch_sharding(mesh)
  train_step = jax.jit(
    make_train_step(model, tx, step_config),
    donate_argnums=0,
    out_shardings=(shardings, None),
  )
  eval_step = jax.jit(make_eval_step(model, step_config))
  log, meter, pending = MetricsLog(workdir, start), Meter(), {}
  clock = Clock()
  with (
    listening() as notice,
    jax.set_mesh(mesh),
    nn.logical_axis_rules(LOGICAL_RULES),
    tqdm(
      total=config.steps,
      initial=start,
      desc=name,
      unit='step',
      smoothing=0.05,
      dynamic_ncols=True,
    ) as bar,
  ):
    for step in range(start + 1, config.steps + 1):
      batch = to_devices(clock.next(iterator), rows)
      state, sums = train_step(state, batch)
      # The device is busy with this step while the last one is read.
      meter.add(pending)
      pending = sums
      bar.update()
      clock.step_ends()
      # Of several processes, all stop after the same step.
      stop = notice.came or checkpoints.reached_preemption(step)
      if config.logs(step) or stop:
        meter.add(pending)
        pending = {}
        values = meter.means()
        values |= clock.row()
        bar.set_postfix(loss=f'{values["loss"]:.4f}')
        if val_batches and config.validates(step):
          values |= validate(eval_step, state, val_batches, rows)
        log.write(step, values)
        clock.restart()
      if step == config.steps:
        state = finish(state)
      if config.saves(step) or stop:
        ckpt.save(
          checkpoints,
          step,
          params=state.params,
          ema=unflatten(state.ema),
          optimizer={'opt_state': state.opt_state},
          data=iterator,
          model=model,
        )
      if stop:
        break
  checkpoints.wait_until_finished()
  checkpoints.close()
  log.close()
  if step < config.steps:
    raise Preempted(f'{workdir}: stopped after step {step}, which is saved.')
  return state


def to_devices(batch: PackedBatch, sharding: NamedSharding) -> PackedBatch:
  """This process's rows as part of the global batch."""
  return jax.tree.map(
    lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)),
    batch,
  )


def validate(eval_step, state, batches, sharding) -> dict[str, float]:
  """Mean losses over held-out batches, names prefixed with `val/`."""
  meter = Meter()
  for index, batch in enumerate(batches):
    meter.add(eval_step(state, to_devices(batch, sharding), index))
  return {
    f'val/{name}': value
    for name, value in meter.means().items()
    if not name.startswith('fill/')
  }


def _resume(
  open_manager: Callable[[], Any],
  state: TrainState,
  shardings,
  iterator: Iterator,
) -> tuple[Any, int, TrainState]:
  """The manager, and the newest checkpoint that can be read, if there is one.

  Damaged ones that are newer are put aside, into `damaged/` beside it. If none
  can be read, nothing is moved: it may be the config that does not fit.
  """
  checkpoints = open_manager()
  problems: dict[int, ckpt.CheckpointError] = {}
  for step in sorted(checkpoints.all_steps(), reverse=True):
    try:
      state = _restore(checkpoints, step, state, shardings, iterator)
    except ckpt.CheckpointError as error:
      problems[step] = error
      continue
    if problems:
      checkpoints.close()
      for damaged, problem in problems.items():
        aside = ckpt.put_aside(Path(checkpoints.directory), damaged)
        print(f'{problem} Put aside as {aside}; step {step} goes on.')
      checkpoints = open_manager()
    return checkpoints, step, state
  if problems:
    raise problems[max(problems)]
  return checkpoints, 0, state


def _restore(
  checkpoints, step: int, state: TrainState, shardings, iterator: Iterator
) -> TrainState:
  """The state and data position of a checkpoint of this run."""
  abstract = jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
    state,
    shardings,
  )
  read = ckpt.restore(
    checkpoints,
    step,
    params=abstract.params,
    ema=unflatten(abstract.ema),
    optimizer={'opt_state': abstract.opt_state},
    data=iterator,
  )
  flat = flatten(read['params'])
  return state.replace(
    step=jax.device_put(jnp.int32(step), shardings.step),
    trainable={name: flat[name] for name in state.trainable},
    frozen={name: flat[name] for name in state.frozen},
    opt_state=read['optimizer']['opt_state'],
    ema=flatten(read['ema']) if state.ema else {},
  )
