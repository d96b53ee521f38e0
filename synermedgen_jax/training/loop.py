"""The compiled step, and the one loop of every stage."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import threading
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils.epath import Path
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from synermedgen_jax.checkpoint import orbax_items as ckpt
from synermedgen_jax.core.batch import PackedBatch
from synermedgen_jax.core.sharding import (
  LOGICAL_RULES,
  batch_sharding,
  place_rows,
)
from synermedgen_jax.core.trees import unflatten
from synermedgen_jax.input.streams import TrainData
from synermedgen_jax.models.bagel import Bagel, BagelConfig
from synermedgen_jax.training import resuming
from synermedgen_jax.training.metrics_log import Meter, Terms
from synermedgen_jax.training.objectives import (
  OBJECTIVES,
  ObjectiveConfig,
  images_in,
  total,
)
from synermedgen_jax.training.optim import gradient_norms
from synermedgen_jax.training.parameter_table import write_parameter_table
from synermedgen_jax.training.preemption import Preempted
from synermedgen_jax.training.record import ProfilerWindow, Record
from synermedgen_jax.training.saver import Saver
from synermedgen_jax.training.train_state import TrainState

# How the terms begin that say nothing of a validation.
OF_TRAINING = ('fill/', 'tokens/', 'images')


@dataclasses.dataclass(frozen=True)
class StepConfig:
  """What the compiled step needs to know."""

  stage: str
  objective: ObjectiveConfig
  ema_decay: float = 0.0
  seed: int = 0


def make_train_step(
  model: BagelConfig, tx: optax.GradientTransformation, config: StepConfig
) -> Callable[[TrainState, PackedBatch], tuple[TrainState, Terms]]:
  """The update: (state, batch) -> (state, its terms).

  Where the loss, a gradient or an update is not finite, the step changes
  nothing and its terms count for nothing; 'skipped/loss' and its like tell.
  """
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
    norms = gradient_norms(grads)
    sums |= {name: (norm, jnp.ones(())) for name, norm in norms.items()}
    bad = {
      'loss': ~jnp.isfinite(sums['loss'][0]),
      'gradient': ~jnp.isfinite(norms['grad_norm']),
      'update': ~jnp.isfinite(optax.tree.norm(updates)),
    }
    fine = ~functools.reduce(jnp.logical_or, bad.values())
    trainable, opt_state, ema, sums = jax.tree.map(
      lambda new, old: jnp.where(fine, new, old),
      (trainable, opt_state, ema, sums),
      (
        state.trainable,
        state.opt_state,
        state.ema,
        jax.tree.map(jnp.zeros_like, sums),
      ),
    )
    for part, is_bad in bad.items():
      sums[f'skipped/{part}'] = (is_bad.astype(jnp.float32), jnp.ones(()))
    return state.replace(
      step=state.step + 1, trainable=trainable, opt_state=opt_state, ema=ema
    ), Terms.of(sums)

  return step


def make_eval_step(model: BagelConfig, config: StepConfig):
  """The losses of a batch under fixed noise, no update."""
  loss = _loss_function(model, config)

  def step(state: TrainState, batch: PackedBatch, index: jax.Array):
    key = jax.random.fold_in(jax.random.key(config.seed + 1), index)
    trainable = state.ema or state.trainable
    return Terms.of(loss(trainable, state.frozen, batch, key)[1])

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
      sums[f'tokens/{name}'] = (used, jnp.ones(()))
    sums['images'] = (images_in(batch, model.latent_stride), jnp.ones(()))
    return value, {'loss': (value, jnp.ones(())), **sums}

  return loss


@dataclasses.dataclass(frozen=True)
class LoopConfig:
  """How long, how often, where.

  Attributes:
    steps: of the whole run.
    rate: the learning rate by step, for the metrics.
    log_every, checkpoint_every, val_every: steps; 0 = never validated.
    keep, keep_every, best: which checkpoints stay, see `checkpoints.manager`.
    max_bad_steps: so many skipped steps in a row are borne.
    profile_start, profile_steps: the steps that the profiler sees; 0 = none.
    step_utilisation: share of the devices' peak rate that one step a second
      uses; 0 where that is not known.
  """

  steps: int
  rate: optax.Schedule
  log_every: int = 50
  checkpoint_every: int = 1000
  val_every: int = 0
  keep: int = 2
  keep_every: int = 0
  best: str = ''
  max_bad_steps: int = 10
  profile_start: int = 0
  profile_steps: int = 0
  step_utilisation: float = 0.0

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
  abstract: TrainState,
  create: Callable[[], TrainState],
  tx: optax.GradientTransformation,
  mesh: Mesh,
  data: TrainData,
  val_batches: list[PackedBatch],
  step_config: StepConfig,
  config: LoopConfig,
  *,
  begin: Callable[[int], None] = lambda start: None,
  complete: Callable[[TrainState], TrainState] = lambda state: state,
  notice: threading.Event | None = None,
  name: str = 'train',
) -> TrainState:
  """Trains to `config.steps`, resuming from the workdir's checkpoint.

  Args:
    workdir: receives `checkpoints/`, `metrics.jsonl`, `incidents.jsonl`,
      `tensorboard/` and `profile/`.
    model: the model's shape.
    abstract: shapes and shardings of the state, from `abstract_state`.
    create: makes the first state, where there is no checkpoint.
    tx: the optimiser.
    mesh: the devices.
    data: this process's rows of every batch.
    val_batches: host batches for validation losses.
    step_config: the step's constants.
    config: the loop's.
    begin: called with the step from which it goes on, once a checkpoint, if
      there is one, turned out to fit.
    complete: what a state needs before it is saved.
    notice: set where the step at hand is to be the last one.
    name: shown on the progress bar.

  Returns:
    The final state.

  Raises:
    Preempted: there was a notice; the step at hand is done and saved.
    CheckpointError: there are checkpoints, and none can be resumed from; or
      one cannot be written.
    BadStepsError: too many steps in a row were not finite.
    WriteError: a log cannot be written.
  """
  iterator = iter(data)
  notice = notice or threading.Event()
  shardings = jax.tree.map(lambda x: x.sharding, abstract)
  checkpoints, start, state = resuming.resume(
    functools.partial(
      ckpt.manager,
      workdir / 'checkpoints',
      keep=config.keep,
      keep_every=config.keep_every,
      best=config.best,
      clean=True,
    ),
    abstract,
    iterator,
  )
  if state is None:
    state = create()
  begin(start)
  write_parameter_table(workdir, abstract)
  if start >= config.steps:
    ckpt.close(checkpoints)
    return state

  rows = batch_sharding(mesh)
  train_step = jax.jit(
    make_train_step(model, tx, step_config),
    donate_argnums=0,
    out_shardings=(shardings, NamedSharding(mesh, PartitionSpec())),
  )
  eval_step = jax.jit(
    make_eval_step(model, step_config),
    out_shardings=NamedSharding(mesh, PartitionSpec()),
  )
  with contextlib.ExitStack() as stack:
    # Whatever ends the loop, what is being saved is saved whole.
    saver = stack.enter_context(contextlib.closing(Saver(checkpoints)))
    record = stack.enter_context(
      Record(
        workdir,
        start,
        config.steps,
        data.describe,
        name=name,
        rate=config.rate,
        max_bad_steps=config.max_bad_steps,
        step_utilisation=config.step_utilisation,
      )
    )
    profiler = stack.enter_context(
      ProfilerWindow(workdir, config.profile_start, config.profile_steps)
    )
    stack.enter_context(jax.set_mesh(mesh))
    stack.enter_context(nn.logical_axis_rules(LOGICAL_RULES))
    step = start
    if notice.is_set():
      raise Preempted(f'{workdir}: stopped after step {step}.')
    for step in range(start + 1, config.steps + 1):
      profiler.begins(step)
      batch = to_devices(record.clock.next(iterator), rows)
      state, sums = train_step(state, batch)
      record.add(step, sums, iterator.numbers)
      profiler.ends(step, sums)
      # Of several processes, all stop after the same step.
      stop = notice.is_set() or checkpoints.reached_preemption(step)
      measured = {}
      if config.logs(step) or stop:
        values = record.row(step)
        if val_batches and config.validates(step):
          measured = validate(eval_step, state, val_batches, rows)
        record.write(step, values | measured)
      if config.saves(step) or stop:
        state = complete(state)
        best = {k: v for k, v in measured.items() if k == config.best}
        saver.save(step, state, iterator, model, best)
      if stop:
        break
    # Notices come more than once; none may end the process during the save.
    saver.wait()
  if step < config.steps:
    raise Preempted(f'{workdir}: stopped after step {step}, which is saved.')
  return state


def to_devices(batch: PackedBatch, sharding: NamedSharding) -> PackedBatch:
  """This process's rows as part of the global batch."""
  return jax.tree.map(lambda x: place_rows(np.asarray(x), sharding), batch)


def validate(eval_step, state, batches, sharding) -> dict[str, float]:
  """Mean losses over held-out batches, names prefixed with `val/`."""
  meter = Meter()
  for index, batch in enumerate(batches):
    meter.add(
      jax.device_get(eval_step(state, to_devices(batch, sharding), index))
    )
  return {
    f'val/{name}': value
    for name, value in meter.means().items()
    if not name.startswith(OF_TRAINING)
  }
