"""A run: from its config to its parts, checked before anything compiles.

Configs stop here: what lies below takes frozen dataclasses and arguments.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from importlib import metadata
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from synermedgen_jax.core.batch import TASKS, Capacity
from synermedgen_jax.core.modalities import ROUTES_BY_NAME
from synermedgen_jax.core.sharding import batch_sharding, make_mesh
from synermedgen_jax.input.pipeline import Dropout, train_dataset
from synermedgen_jax.input.tokenizer import Tokenizer, load_tokenizer
from synermedgen_jax.interop import bagel_formats
from synermedgen_jax.models.bagel import Bagel, BagelConfig, init_params
from synermedgen_jax.models.interval_attention import IMPLEMENTATIONS
from synermedgen_jax.models.layers import REMAT_POLICIES
from synermedgen_jax.models.presets import preset
from synermedgen_jax.scenes import sources as scenes
from synermedgen_jax.slices.store import SliceStore
from synermedgen_jax.slices.windows import FIXED_WINDOWS
from synermedgen_jax.training import checkpoints as ckpt
from synermedgen_jax.training import loop, optim
from synermedgen_jax.training.objectives import OBJECTIVES, ObjectiveConfig
from synermedgen_jax.training.train_state import TrainState, create_state

PACKAGES = ('jax', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'tensorstore')


class ConfigError(ValueError):
  """A config that cannot run; one line naming the key."""


def check(
  config: ConfigDict, model: BagelConfig, tokenizer: Tokenizer, mesh: Mesh
) -> None:
  """Refuses contradictions before anything compiles.

  Raises:
    ConfigError: one line naming the key.
  """
  if config.stage not in OBJECTIVES:
    raise ConfigError(
      f'config.stage {config.stage!r}: expected one of {", ".join(OBJECTIVES)}.'
    )
  for key in ('rows', 'steps', 'log_every', 'checkpoint_every'):
    if config[key] < 1:
      raise ConfigError(f'config.{key} {config[key]}: must be at least 1.')
  for key, known in (
    ('tasks', TASKS[1:]),
    ('routes', ROUTES_BY_NAME),
    ('remat', REMAT_POLICIES),
    ('attention', IMPLEMENTATIONS),
  ):
    value = config[key]
    given = {value} - {''} if isinstance(value, str) else set(value)
    unknown = sorted(given - set(known))
    if unknown:
      raise ConfigError(
        f'config.{key}: unknown {", ".join(unknown)}; expected some of '
        f'{", ".join(known)}.'
      )
  platform = mesh.devices.flat[0].platform
  attention = IMPLEMENTATIONS.get(config.attention)
  if attention and attention.platform not in (None, platform):
    raise ConfigError(
      f'config.attention {config.attention!r}: is for {attention.platform}, '
      f"and the devices are of {platform}; '' takes their own."
    )
  if not any(share > 0 for share in config.tasks.values()):
    raise ConfigError('config.tasks: no task has a share above 0.')
  if tokenizer.vocab_size > model.llm.vocab:
    raise ConfigError(
      f'config.tokenizer has {tokenizer.vocab_size} tokens, the model '
      f'{config.model!r} embeds {model.llm.vocab}.'
    )
  devices = mesh.shape['data'] * mesh.shape['fsdp']
  if config.rows % devices or config.rows % jax.process_count():
    raise ConfigError(
      f'config.rows {config.rows} is not divisible by the {devices} devices '
      f'of the data and fsdp axes of config.mesh {tuple(config.mesh)} and by '
      f'{jax.process_count()} process(es).'
    )


@contextlib.contextmanager
def _reading(key: str):
  """Tells what is wrong with the value of `key` as an error of the config."""
  try:
    yield
  except (ValueError, OSError) as error:
    raise ConfigError(f'config.{key}: {error}') from None


def train(config: ConfigDict, workdir: Path) -> None:
  """Runs the stage that `config` describes in `workdir`, or resumes it."""
  model, initial = _starting_point(config)
  _check_tokenizer(config)
  with _reading('tokenizer'):
    tokenizer = load_tokenizer(config.tokenizer)
  with _reading('mesh'):
    mesh = make_mesh(config.mesh)
  check(config, model, tokenizer, mesh)
  model = computed_as(config, model)
  with _reading('image'):
    geometry = model.image_geometry(**config.image)
  with _reading('store'):
    store = SliceStore.open(config.store) if config.store else None

  def dataset(split: str, seed: int, dropout: Dropout, first_examples: int = 0):
    return train_dataset(
      store,
      split,
      tokenizer,
      geometry,
      Capacity(**config.capacity),
      tasks=dict(config.tasks),
      first_tasks=dict(config.first_tasks),
      first_examples=first_examples,
      sources={
        **bagel_formats.sources(config.get('bagel_files', {}), split),
        **scenes.sources(config.get('scenes', {}), split),
      },
      rows=config.rows // jax.process_count(),
      seed=seed,
      dropout=dropout,
      neighbours=config.neighbours,
      routes=tuple(config.routes),
      packing_bins=config.packing_bins,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
      threads=config.reader_threads,
    )

  val = []
  try:
    data = dataset(
      'train',
      config.seed,
      Dropout(**config.dropout),
      config.first_examples,
    )
    if config.val_every:
      held_out = iter(dataset('val', config.seed + 1, Dropout()))
      val = [next(held_out) for _ in range(config.val_batches)]
  except ValueError as error:
    raise ConfigError(str(error)) from None

  scales, tx = optimiser(config, model)
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
  trained = sum(x.size for x in state.trainable.values())
  frozen = sum(x.size for x in state.frozen.values())
  print(
    f'Stage {config.stage} on {mesh.size} {mesh.devices.flat[0].platform} '
    f'device(s): {trained / 1e6:.2f} M parameters train, '
    f'{frozen / 1e6:.2f} M are frozen.'
  )

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
    step_config(config),
    loop.LoopConfig(
      steps=config.steps,
      log_every=config.log_every,
      checkpoint_every=config.checkpoint_every,
      val_every=config.val_every,
      keep=config.keep,
      keep_every=config.keep_every,
    ),
    begin=lambda: _write_config(config, store, workdir),
    finish=finish,
    name=workdir.name,
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
  try:
    scales = optim.multipliers(names, tuple(map(tuple, config.trainable)))
    rate = optim.schedule(
      config.learning_rate, config.warmup, config.steps, config.decay
    )
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
  except ValueError as error:
    raise ConfigError(str(error)) from None


def step_config(config: ConfigDict) -> loop.StepConfig:
  """The constants of the compiled step."""
  return loop.StepConfig(
    stage=config.stage,
    objective=ObjectiveConfig(**config.objective),
    ema_decay=config.ema,
    seed=config.seed,
  )


def _starting_point(config: ConfigDict) -> tuple[BagelConfig, Any]:
  """The model's shape, and the parameters of `config.init_from` if any.

  The model 'init_from' is whatever `config.init_from` holds.
  """
  if config.model == 'init_from':
    if not config.init_from:
      raise ConfigError(
        "config.model 'init_from' needs config.init_from: name a workdir."
      )
    with _reading('init_from'):
      return ckpt.load_model(Path(config.init_from) / 'checkpoints')
  with _reading('model'):
    model = preset(config.model)
  if not config.init_from:
    return model, None
  with _reading('init_from'):
    found, params = ckpt.load_model(Path(config.init_from) / 'checkpoints')
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
  """Keeps the resolved config, how slices are made, and the versions."""
  versions = {name: metadata.version(name) for name in PACKAGES}
  windows = store.windows if store else FIXED_WINDOWS
  record = {
    'config': config.to_dict(),
    'plane': store.plane if store else 'axial',
    'windows': {m: dataclasses.asdict(w) for m, w in sorted(windows.items())},
    'versions': versions,
  }
  workdir.mkdir(parents=True, exist_ok=True)
  (workdir / 'config.json').write_text(json.dumps(record, indent=2) + '\n')


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
