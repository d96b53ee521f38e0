"""The compiled step, and the loop that every stage shares."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils.epath import Path
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from synermedgen_jax.checkpoint import orbax_items as ckpt
from synermedgen_jax.core.batch import Capacity, ImageGeometry
from synermedgen_jax.core.compiling import compiling
from synermedgen_jax.core.sharding import (
  LOGICAL_RULES,
  batch_sharding,
  place_rows,
)
from synermedgen_jax.core.trees import unflatten
from synermedgen_jax.input.mixture import Dropout, Mixture
from synermedgen_jax.input.streams import BatchIterator, TrainData
from synermedgen_jax.input.tokenizer import Tokenizer
from synermedgen_jax.slices.store import SliceStore
from synermedgen_jax.training import provenance, resuming
from synermedgen_jax.training.metrics_log import Meter, Terms
from synermedgen_jax.training.objectives import (
  OBJECTIVES,
  ObjectiveConfig,
  total,
)
from synermedgen_jax.training.optim import gradient_norms
from synermedgen_jax.training.parameter_table import write_parameter_table
from synermedgen_jax.training.preemption import Preempted
from synermedgen_jax.training.record import ProfilerWindow, Record
from synermedgen_jax.training.saver import Saver
from synermedgen_jax.training.train_state import Model, TrainState

T = TypeVar('T')

# Prefixes of terms that a validation leaves out.
OF_TRAINING = ('fill/', 'tokens/', 'images')


@dataclasses.dataclass(frozen=True)
class StepConfig:
  """Constants of the compiled step.

  Attributes:
    stage: a name of `objectives.OBJECTIVES`.
    objective: weights of the terms and constants of the flow.
    tasks: names of the tasks, in the order of their ids.
    ema_decay: decay per step of the parameters' average; 0 = no average.
    seed: random seed of noise and timesteps.
  """

  stage: str
  objective: ObjectiveConfig
  tasks: tuple[str, ...] = ()
  ema_decay: float = 0.0
  seed: int = 0


def make_train_step(
  model: Model, tx: optax.GradientTransformation, config: StepConfig
) -> Callable[[TrainState, Any], tuple[TrainState, Terms]]:
  """The update: (state, batch) -> (state, its terms).

  Where the loss, a gradient or an update is not finite, the step changes
  nothing and its terms count for nothing; terms such as 'skipped/loss' count
  these steps.
  """
  loss = _loss_function(model, config)

  def step(state: TrainState, batch):
    key = jax.random.fold_in(jax.random.key(config.seed), state.step)
    grads, (sums, memory) = jax.grad(loss, has_aux=True)(
      state.trainable, state.frozen, state.memory, batch, key
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
    trainable, opt_state, ema, memory, sums = jax.tree.map(
      lambda new, old: jnp.where(fine, new, old),
      (trainable, opt_state, ema, memory, sums),
      (
        state.trainable,
        state.opt_state,
        state.ema,
        state.memory,
        jax.tree.map(jnp.zeros_like, sums),
      ),
    )
    for part, is_bad in bad.items():
      sums[f'skipped/{part}'] = (is_bad.astype(jnp.float32), jnp.ones(()))
    return state.replace(
      step=state.step + 1,
      trainable=trainable,
      opt_state=opt_state,
      ema=ema,
      memory=memory,
    ), Terms.of(sums)

  return step


def make_eval_step(model: Model, config: StepConfig):
  """The losses of a batch under fixed noise, no update."""
  loss = _loss_function(model, config)

  def step(state: TrainState, batch, index: jax.Array):
    key = jax.random.fold_in(jax.random.key(config.seed + 1), index)
    trainable = state.ema or state.trainable
    _, (sums, _) = loss(trainable, state.frozen, state.memory, batch, key)
    return Terms.of(sums)

  return step


def _loss_function(model: Model, config: StepConfig):
  objective = OBJECTIVES[config.stage]

  def loss(trainable, frozen, memory, batch, key):
    params = unflatten({**trainable, **frozen})
    arguments = (model, params, batch, key, config.objective, config.tasks)
    if objective.carries:
      sums, memory = objective.sums(*arguments, memory)
    else:
      sums = objective.sums(*arguments)
    value = total(sums, config.objective, objective.terms)
    sums = {'loss': (value, jnp.ones(())), **sums}
    return value, (sums | objective.statistics(model, batch), memory)

  return loss


@dataclasses.dataclass(frozen=True)
class LoopConfig:
  """Length of a run, and intervals of its logs and checkpoints.

  Attributes:
    steps: last step of the run.
    rate: learning rate by step, for the metrics.
    log_every, checkpoint_every, val_every: steps; 0 = never validated.
    keep, keep_every, best: retention of checkpoints, see `orbax_items.manager`.
    max_bad_steps: largest number of skipped steps in a row.
    profile_start, profile_steps: first traced step, number of traced steps;
      0 = no trace.
    step_utilisation: share of the devices' peak rate that one step a second
      uses; 0 = unknown.
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


@dataclasses.dataclass(frozen=True)
class Run:
  """A model, ready to train: its data, optimiser and settings.

  `training.build.build` returns it for a config.

  Attributes:
    config: resolved config as plain values, as in `config.json`.
    model: the model, with its shape and compute settings.
    rows: rows of a batch, over all devices.
    mesh: mesh of all devices.
    scales: learning-rate multiplier per parameter; 0 = frozen.
    tx: the optimiser.
    state: shapes and shardings of the train state.
    create: returns the initial state of a run without a checkpoint.
    complete: prepares a state for a save: scales a new autoencoder's latents.
    step: constants of the compiled step.
    loop: length of the run, and intervals of logs and checkpoints.
    store: the slice store; None if all data come from files.
    data: this process's rows of every batch; None for planning.
    val: host batches for validation losses.
  """

  config: Mapping[str, Any]
  model: Model
  rows: int
  mesh: Mesh
  scales: Mapping[str, float]
  tx: optax.GradientTransformation
  state: TrainState
  create: Callable[[], TrainState]
  complete: Callable[[TrainState], TrainState]
  step: StepConfig
  loop: LoopConfig
  store: SliceStore | None
  data: TrainData | None
  val: Sequence[Any]


@dataclasses.dataclass(frozen=True)
class BagelRun(Run):
  """A stage of SynerMedGen.

  Attributes:
    tokenizer: text to token ids.
    geometry: sizes that map slices to tokens.
    capacity: numbers of tokens and images that fit in a row.
    mixture: tasks, wordings and routes of the training data, without files.
    dropout: condition dropout of synthesis.
  """

  tokenizer: Tokenizer
  geometry: ImageGeometry
  capacity: Capacity
  mixture: Mixture
  dropout: Dropout


def train(
  run: Run, workdir: Path, notice: threading.Event | None = None
) -> TrainState:
  """Trains to `run.loop.steps`, resuming from the workdir's checkpoint.

  Args:
    run: the stage to train.
    workdir: receives `config.json`, `checkpoints/`, `metrics.jsonl` and other
      logs; its name is shown on the progress bar. May be an address such as
      gs://BUCKET/RUN.
    notice: set where the current step is to be the last one.

  Returns:
    The final state.

  Raises:
    Preempted: there was a notice; the current step is done and saved.
    CheckpointError: there are checkpoints, and none can be resumed from; or
      one cannot be written.
    BadStepsError: too many steps in a row were not finite.
    WriteError: a log cannot be written.
  """
  iterator = iter(run.data)
  checkpoints, start, state = resuming.resume(
    functools.partial(
      ckpt.manager,
      workdir / 'checkpoints',
      keep=run.loop.keep,
      keep_every=run.loop.keep_every,
      best=run.loop.best,
      clean=True,
    ),
    run.state,
    iterator,
  )
  # Whatever ends the run, a save that has begun is finished.
  with contextlib.closing(Saver(checkpoints)) as saver:
    if state is None:
      state = run.create()
    provenance.keep(run.config, run.store, workdir, start)
    write_parameter_table(workdir, run.state)
    if start >= run.loop.steps:
      return state
    return _loop(run, workdir, saver, iterator, start, state, notice)


def _loop(
  run: Run,
  workdir: Path,
  saver: Saver,
  iterator: BatchIterator,
  start: int,
  state: TrainState,
  notice: threading.Event | None,
) -> TrainState:
  """Steps from `start` to the end, or to a notice."""
  config, rows = run.loop, batch_sharding(run.mesh)
  train_step, eval_step = jit_steps(run)
  notice = notice or threading.Event()
  record = Record(
    workdir,
    start,
    config.steps,
    run.data.describe,
    name=workdir.name,
    rate=config.rate,
    max_bad_steps=config.max_bad_steps,
    step_utilisation=config.step_utilisation,
  )
  profiler = ProfilerWindow(workdir, config.profile_start, config.profile_steps)
  with (
    record,
    profiler,
    jax.set_mesh(run.mesh),
    nn.logical_axis_rules(LOGICAL_RULES),
  ):
    step = start
    if notice.is_set():
      raise Preempted(f'{workdir}: stopped after step {step}.')
    for step in range(start + 1, config.steps + 1):
      profiler.begins(step)
      batch = to_devices(record.clock.next(iterator), rows)
      with compiling('the training step', shown=record.shown):
        state, sums = train_step(state, batch)
      record.add(step, sums, iterator.numbers)
      profiler.ends(step, sums)
      # Of several processes, all stop after the same step.
      stop = notice.is_set() or saver.reached_preemption(step)
      measured = {}
      if config.logs(step) or stop:
        values = record.row(step)
        if run.val and config.validates(step):
          measured = validate(eval_step, state, run.val, rows)
        record.write(step, values | measured)
      if config.saves(step) or stop:
        state = run.complete(state)
        best = {k: v for k, v in measured.items() if k == config.best}
        saver.save(step, state, iterator, run.model.config, best)
      if stop:
        break
    # Notices come more than once; none may end the process during the save.
    saver.wait()
  if step < config.steps:
    raise Preempted(f'{workdir}: stopped after step {step}, which is saved.')
  return state


def jit_steps(run: Run) -> tuple[Callable, Callable]:
  """The train and the validation step, jitted for the run's mesh."""
  replicated = NamedSharding(run.mesh, PartitionSpec())
  shardings = jax.tree.map(lambda x: x.sharding, run.state)
  train_step = jax.jit(
    make_train_step(run.model, run.tx, run.step),
    donate_argnums=0,
    out_shardings=(shardings, replicated),
  )
  eval_step = jax.jit(
    make_eval_step(run.model, run.step), out_shardings=replicated
  )
  return train_step, eval_step


def to_devices(batch: T, sharding: NamedSharding) -> T:
  """This process's rows as part of the global batch."""
  return jax.tree.map(lambda x: place_rows(np.asarray(x), sharding), batch)


def validate(eval_step, state, batches, sharding) -> dict[str, float]:
  """Mean losses over held-out batches, names prefixed with `val/`."""
  meter = Meter()
  for index, batch in enumerate(batches):
    rows = to_devices(batch, sharding)
    with compiling('the validation step', shown=jax.process_index() == 0):
      sums = eval_step(state, rows, index)
    meter.add(jax.device_get(sums))
  return {
    f'val/{name}': value
    for name, value in meter.means().items()
    if not name.startswith(OF_TRAINING)
  }
