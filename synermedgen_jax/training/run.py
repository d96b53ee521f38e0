"""A run: from its config to its parts, checked before anything compiles.

Configs stop here: what lies below takes frozen dataclasses and arguments.
"""

from __future__ import annotations

import re
import threading

import flax.linen as nn
import jax
import optax
from etils.epath import Path
from jax.sharding import Mesh
from ml_collections import ConfigDict

from synermedgen_jax.config.errors import ConfigError, key_errors, made_of
from synermedgen_jax.config.model import (
  check_tokenizer,
  initial_params,
  model_shape,
  with_compute,
)
from synermedgen_jax.config.modules import import_modules
from synermedgen_jax.core import trees
from synermedgen_jax.core.batch import Capacity, PackedBatch
from synermedgen_jax.core.chips import chip_of
from synermedgen_jax.core.sharding import make_mesh
from synermedgen_jax.input.augment import Augment
from synermedgen_jax.input.pipeline import Dropout, Mixture, train_dataset
from synermedgen_jax.input.streams import TrainData
from synermedgen_jax.input.tokenizer import Tokenizer, load_tokenizer
from synermedgen_jax.interop import bagel_formats
from synermedgen_jax.models.bagel import BagelConfig, abstract_params
from synermedgen_jax.slices.store import SliceStore
from synermedgen_jax.tasks.prompts import PROMPTS
from synermedgen_jax.tasks.registry import task_names
from synermedgen_jax.training import flops, loop, optim, provenance
from synermedgen_jax.training.calibration import calibrate_latents
from synermedgen_jax.training.config_checks import (
  check,
  check_best_is_measured,
  check_store,
  streams_here,
)
from synermedgen_jax.training.objectives import ObjectiveConfig
from synermedgen_jax.training.train_state import (
  TrainState,
  abstract_state,
  create_state,
)


def train(
  config: ConfigDict, workdir: Path, notice: threading.Event | None = None
) -> None:
  """Runs the stage that `config` describes in `workdir`, or resumes it.

  Args:
    config: one of configs/*.py.
    workdir: of the run; may be an address such as gs://.
    notice: set where the run is to end after the step at hand.
  """
  with key_errors('modules'):
    import_modules(config.modules)
  model = model_shape(config)
  check_tokenizer(config)
  with key_errors('tokenizer'):
    tokenizer = load_tokenizer(config.tokenizer)
  with key_errors('mesh'):
    mesh = make_mesh(config.mesh)
  check(config, model, tokenizer, mesh)
  model = with_compute(config, model)
  store = _store(config)
  data, val = _data(config, model, store, tokenizer, mesh)
  first = next(iter(data))
  constants = step_config(config)
  scales, tx = optimiser(config, model)
  abstract = abstract_state(model, scales, tx, mesh, ema=config.ema > 0)
  _check_best(config, model, constants, abstract, first)
  _introduce(config, abstract, mesh)

  def create() -> TrainState:
    return create_state(
      model,
      scales,
      tx,
      mesh,
      seed=config.seed,
      ema=config.ema > 0,
      initial=initial_params(config, tokenizer),
    )[0]

  def complete(state: TrainState) -> TrainState:
    if config.stage != 'autoencoder':
      return state
    return calibrate_latents(model, state, iter(data), mesh)

  loop.train(
    workdir,
    model,
    abstract,
    create,
    tx,
    mesh,
    data,
    val,
    constants,
    _loop_config(
      config,
      _step_utilisation(config, model, tx, constants, abstract, first, mesh),
    ),
    begin=lambda start: provenance.keep(config, store, workdir, start),
    complete=complete,
    notice=notice,
    name=workdir.name,
  )


def _store(config: ConfigDict) -> SliceStore | None:
  if not config.store:
    return None
  with key_errors('store'):
    store = SliceStore.open(config.store)
  check_store(config, store)
  return store


def _check_best(
  config: ConfigDict,
  model: BagelConfig,
  constants: loop.StepConfig,
  state: TrainState,
  rows: PackedBatch,
) -> None:
  """Refuses a `config.best` that the validation does not measure."""
  if config.best:
    step = loop.make_eval_step(model, constants)
    terms = jax.eval_shape(step, state, rows, 0)
    check_best_is_measured(
      config, {t for t in terms if not t.startswith(loop.OF_TRAINING)}
    )


def _loop_config(config: ConfigDict, step_utilisation: float):
  return loop.LoopConfig(
    steps=config.steps,
    rate=learning_rate(config),
    log_every=config.log_every,
    checkpoint_every=config.checkpoint_every,
    val_every=config.val_every,
    keep=config.keep,
    keep_every=config.keep_every,
    best=config.best,
    max_bad_steps=config.max_bad_steps,
    profile_start=config.profile.start,
    profile_steps=config.profile.steps,
    step_utilisation=step_utilisation,
  )


def _data(
  config: ConfigDict,
  model: BagelConfig,
  store: SliceStore | None,
  tokenizer: Tokenizer,
  mesh: Mesh,
) -> tuple[TrainData, list[PackedBatch]]:
  """What is trained on, and the batches of the validation."""
  geometry = made_of(config, 'image', model.image_geometry)
  capacity = made_of(config, 'capacity', Capacity)
  changes = {
    'dropout': made_of(config, 'dropout', Dropout),
    'augment': made_of(config, 'augment', Augment),
  }
  here = streams_here(config, mesh)

  def dataset(split: str, seed: int, route_weights=(), **changes):
    return train_dataset(
      store,
      split,
      tokenizer,
      geometry,
      capacity,
      Mixture(
        tasks=dict(config.tasks),
        prompts=PROMPTS[config.prompts],
        neighbours=config.neighbours,
        routes=tuple(config.routes),
        route_weights=tuple(route_weights),
        sources=bagel_formats.sources(config.bagel_files, split),
      ),
      rows=config.rows,
      seed=seed,
      **changes,
      packing_bins=config.packing_bins,
      streams=config.streams,
      here=here,
      threads=config.reader_threads,
    )

  val = []
  try:
    data = dataset('train', config.seed, config.route_weights, **changes)
    if config.val_every:
      held_out = iter(dataset('val', config.seed + 1))
      val = [next(held_out) for _ in range(config.val_batches)]
  except ValueError as error:
    raise ConfigError(str(error)) from None
  return data, val


def _introduce(config: ConfigDict, state: TrainState, mesh: Mesh) -> None:
  if jax.process_index() == 0:
    trained = sum(x.size for x in state.trainable.values())
    frozen = sum(x.size for x in state.frozen.values())
    print(
      f'Stage {config.stage} on {mesh.size} {mesh.devices.flat[0].platform} '
      f'device(s): {trained / 1e6:.2f} M parameters train, '
      f'{frozen / 1e6:.2f} M are frozen.',
      flush=True,
    )


def optimiser(
  config: ConfigDict, model: BagelConfig
) -> tuple[dict[str, float], optax.GradientTransformation]:
  """What trains, as a learning-rate multiplier per parameter, and with what."""
  names = trees.flatten(nn.unbox(abstract_params(model))).keys()
  rate = learning_rate(config)
  try:
    scales = optim.multipliers(names, tuple(map(tuple, config.trainable)))
    return scales, optim.optimizer(
      rate,
      scales,
      name=config.optimizer,
      b1=config.b1,
      b2=config.b2,
      eps=config.eps,
      weight_decay=config.weight_decay,
      clip=config.clip,
    )
  except re.error as error:
    raise ConfigError(f'config.trainable: {error}.') from None
  except ValueError as error:
    raise ConfigError(str(error)) from None


def learning_rate(config: ConfigDict) -> optax.Schedule:
  """The learning rate by step."""
  try:
    return optim.schedule(
      config.learning_rate, config.warmup, config.steps, config.decay
    )
  except ValueError as error:
    raise ConfigError(str(error)) from None


def step_config(config: ConfigDict) -> loop.StepConfig:
  """The constants of the compiled step."""
  return loop.StepConfig(
    stage=config.stage,
    objective=made_of(config, 'objective', ObjectiveConfig),
    tasks=task_names(config.tasks),
    ema_decay=config.ema,
    seed=config.seed,
  )


def _step_utilisation(
  config: ConfigDict,
  model: BagelConfig,
  tx: optax.GradientTransformation,
  constants: loop.StepConfig,
  state: TrainState,
  rows: PackedBatch,
  mesh: Mesh,
) -> float:
  """Share of the peak rate that one step a second uses; 0 = not known.

  Args:
    rows: some of the data, whose visibility stands for all.
  """
  chip = chip_of(mesh.devices.flat[0])
  if not chip:
    return 0.0
  batch = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct((config.rows, *x.shape[1:]), x.dtype), rows
  )
  needed = flops.step_flops(
    model, tx, constants, state, batch, flops.active_blocks(rows)
  )
  return sum(needed.values()) / (chip.tflops * 1e12 * mesh.size)
