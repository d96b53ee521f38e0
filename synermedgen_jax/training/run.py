"""A run: from its config to its parts, checked before anything compiles.

Configs stop here: what lies below takes frozen dataclasses and arguments.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import re
import subprocess
from importlib import metadata
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from etils.epath import Path
from jax.sharding import Mesh
from ml_collections import ConfigDict

from synermedgen_jax.core.batch import Capacity, PackedBatch
from synermedgen_jax.core.chips import chip_of
from synermedgen_jax.core.sharding import batch_sharding, make_mesh
from synermedgen_jax.input.pipeline import Dropout, train_dataset
from synermedgen_jax.input.streams import TrainData
from synermedgen_jax.input.tokenizer import Tokenizer, load_tokenizer
from synermedgen_jax.interop import bagel_formats
from synermedgen_jax.models.bagel import Bagel, BagelConfig, init_params
from synermedgen_jax.models.presets import preset
from synermedgen_jax.slices.store import SliceStore
from synermedgen_jax.slices.windows import FIXED_WINDOWS
from synermedgen_jax.training import checkpoints as ckpt
from synermedgen_jax.training import flops, loop, optim
from synermedgen_jax.training.config_checks import (
  ConfigError,
  check,
  check_best_is_measured,
  check_store,
  reading,
  streams_here,
)
from synermedgen_jax.training.metrics_log import write_whole
from synermedgen_jax.training.objectives import ObjectiveConfig
from synermedgen_jax.training.train_state import (
  TrainState,
  abstract_state,
  create_state,
)

PACKAGES = (
  'jax',
  'jaxlib',
  'flax',
  'optax',
  'orbax-checkpoint',
  'grain',
  'tensorstore',
  'numpy',
)


def train(config: ConfigDict, workdir: Path) -> None:
  """Runs the stage that `config` describes in `workdir`, or resumes it."""
  model, initial = starting_point(config)
  _check_tokenizer(config)
  with reading('tokenizer'):
    tokenizer = load_tokenizer(config.tokenizer)
  with reading('mesh'):
    mesh = make_mesh(config.mesh)
  check(config, model, tokenizer, mesh)
  model = computed_as(config, model)
  store = None
  if config.store:
    with reading('store'):
      store = SliceStore.open(config.store)
    check_store(config, store)
  data, val = _data(config, model, store, tokenizer, mesh)
  first = next(iter(data))
  constants = step_config(config)
  scales, tx = optimiser(config, model)
  if config.best:
    step = loop.make_eval_step(model, constants)
    state = abstract_state(model, scales, tx, mesh, ema=config.ema > 0)
    terms = jax.eval_shape(step, state, first, 0)
    check_best_is_measured(
      config, {t for t in terms if not t.startswith(loop.OF_TRAINING)}
    )
  state, shardings = create_state(
    model,
    scales,
    tx,
    mesh,
    seed=config.seed,
    ema=config.ema > 0,
    initial=initial,
  )
  del initial
  _introduce(config, state, mesh)

  def finish(state: TrainState) -> TrainState:
    if config.stage != 'autoencoder':
      return state
    return calibrate_latents(model, state, iter(data), mesh)

  loop.train(
    workdir,
    model,
    state,
    shardings,
    tx,
    mesh,
    data,
    val,
    constants,
    loop.LoopConfig(
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
      step_utilisation=_step_utilisation(
        config, model, tx, constants, state, first, mesh
      ),
    ),
    begin=lambda: _write_config(config, store, workdir),
    finish=finish,
    name=workdir.name,
  )


def _data(
  config: ConfigDict,
  model: BagelConfig,
  store: SliceStore | None,
  tokenizer: Tokenizer,
  mesh: Mesh,
) -> tuple[TrainData, list[PackedBatch]]:
  """What is trained on, and the batches of the validation."""
  with reading('image'):
    geometry = model.image_geometry(**config.image)
  with reading('capacity'):
    capacity = Capacity(**config.capacity)
  with reading('dropout'):
    train_dropout = Dropout(**config.dropout)
  here = streams_here(config, mesh)

  def dataset(split: str, seed: int, dropout: Dropout, first_examples: int = 0):
    return train_dataset(
      store,
      split,
      tokenizer,
      geometry,
      capacity,
      tasks=dict(config.tasks),
      first_tasks=dict(config.first_tasks),
      first_examples=first_examples,
      sources=bagel_formats.sources(config.bagel_files, split),
      rows=config.rows,
      seed=seed,
      dropout=dropout,
      neighbours=config.neighbours,
      routes=tuple(config.routes),
      packing_bins=config.packing_bins,
      streams=config.streams,
      here=here,
      threads=config.reader_threads,
    )

  val = []
  try:
    data = dataset(
      'train',
      config.seed,
      train_dropout,
      config.first_examples,
    )
    if config.val_every:
      held_out = iter(dataset('val', config.seed + 1, Dropout()))
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


def computed_as(config: ConfigDict, model: BagelConfig) -> BagelConfig:
  """The same model, computed as the config's remat and attention say."""
  ways = {key: config[key] for key in ('remat', 'attention') if config.get(key)}
  return dataclasses.replace(
    model,
    llm=dataclasses.replace(model.llm, **ways),
    vit=dataclasses.replace(model.vit, **ways),
  )


def optimiser(
  config: ConfigDict, model: BagelConfig
) -> tuple[dict[str, float], optax.GradientTransformation]:
  """What trains, as a learning-rate multiplier per parameter, and with what."""
  names = optim.flatten(_abstract_params(model)).keys()
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
  with reading('objective'):
    objective = ObjectiveConfig(**config.objective)
  return loop.StepConfig(
    stage=config.stage,
    objective=objective,
    ema_decay=config.ema,
    seed=config.seed,
  )


def starting_point(config: ConfigDict) -> tuple[BagelConfig, Any]:
  """The model's shape, and the parameters of `config.init_from` if any.

  Raises:
    ConfigError: naming the key that is wrong.

  The model 'init_from' is whatever `config.init_from` holds.
  """
  if config.model == 'init_from' and not config.init_from:
    raise ConfigError(
      "config.model 'init_from' needs config.init_from: name a workdir."
    )
  if not config.init_from:
    with reading('model'):
      return preset(config.model), None
  with reading('init_from'):
    found, params = ckpt.load_model(
      Path(config.init_from) / 'checkpoints', which=str(config.init_step)
    )
  if config.model == 'init_from':
    return found, params
  with reading('model'):
    model = preset(config.model)
  if _shape(found) != _shape(model):
    raise ConfigError(
      f'config.init_from {config.init_from} holds a model of another shape '
      f'than config.model {config.model!r}.'
    )
  return model, params


def _shape(model: BagelConfig) -> BagelConfig:
  """The model, however it is computed."""
  plain = ConfigDict({'remat': 'none', 'attention': 'xla'})
  return computed_as(plain, model)


def _check_tokenizer(config: ConfigDict) -> None:
  """A model that learned other ids would read nonsense, and tell nobody."""
  path = Path(config.init_from) / 'config.json'
  if not config.init_from or not path.is_file():
    return
  name = json.loads(path.read_text())['config']['tokenizer']
  if (name == 'project') != (config.tokenizer == 'project'):
    raise ConfigError(
      f'config.tokenizer {config.tokenizer!r} is not that of config.init_from '
      f'{config.init_from}, {name!r}.'
    )


def _abstract_params(model: BagelConfig):
  return jax.eval_shape(lambda: nn.unbox(init_params(model, jax.random.key(0))))


def _write_config(
  config: ConfigDict, store: SliceStore | None, workdir: Path
) -> None:
  """Keeps the resolved config, how slices are made, and what code it was."""
  if jax.process_index() > 0:
    return
  versions = {name: metadata.version(name) for name in PACKAGES}
  windows = store.windows if store else FIXED_WINDOWS
  record = {
    'config': config.to_dict(),
    'plane': store.plane if store else 'axial',
    'windows': {m: dataclasses.asdict(w) for m, w in sorted(windows.items())},
    'versions': {'python': platform.python_version(), **versions},
    'commit': _commit(),
  }
  write_whole(workdir / 'config.json', json.dumps(record, indent=2) + '\n')


def _commit() -> str:
  """The commit of this code, '-dirty' behind it where it was changed; or ''."""

  def git(*words: str) -> str:
    return subprocess.run(
      ['git', *words],
      cwd=os.path.dirname(__file__),
      capture_output=True,
      text=True,
      check=True,
    ).stdout.strip()

  try:
    # Where it is installed, a repository around it is another one.
    git('ls-files', '--error-unmatch', os.path.basename(__file__))
    return git('describe', '--always', '--dirty', '--abbrev=40', '--match=')
  except (OSError, subprocess.CalledProcessError):
    return ''


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


def calibrate_latents(
  model: BagelConfig, state: TrainState, data, mesh, *, batches: int = 8
) -> TrainState:
  """Sets the latents' shift and scale from training images.

  A flow runs from unit noise to data, so the data should have unit variance.
  FLUX's constants do that for FLUX; a fresh autoencoder has its own.
  """

  @jax.jit
  def moments(params, images):
    images = images.reshape(-1, *images.shape[2:])
    mean, _ = Bagel(model).apply(
      {'params': params}, images, method=Bagel.moments
    )
    return mean.mean((0, 1, 2)), jnp.square(mean).mean((0, 1, 2))

  params = {**state.frozen, **(state.ema or state.trainable)}
  params = optim.unflatten(params)
  rows = batch_sharding(mesh)
  found = [
    moments(params, loop.to_devices(next(data), rows).vae_images)
    for _ in range(batches)
  ]
  mean = sum(first for first, _ in found) / batches
  square = sum(second for _, second in found) / batches
  scale = 1 / jnp.sqrt(jnp.maximum(square - mean**2, 1e-12))
  frozen = dict(state.frozen)
  frozen['autoencoder/latent_shift'] = mean.astype(model.dtype)
  frozen['autoencoder/latent_scale'] = scale.astype(model.dtype)
  return state.replace(frozen=frozen)
