"""Loads a trained model and its settings from a workdir.

trained = Trained.load('runs/demo/detail')
slices = trained.synthesiser().synthesise(route, source_slices)
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from etils.epath import Path
from ml_collections import ConfigDict

from synermedgen_jax.checkpoint import model as saved_model
from synermedgen_jax.checkpoint import weights_folder
from synermedgen_jax.checkpoint.parameters import require_all
from synermedgen_jax.config.errors import ConfigError, key_errors
from synermedgen_jax.config.model import (
  compute_of,
  image_size,
  initial_params,
  model_shape,
)
from synermedgen_jax.config.sampling import SamplingConfig
from synermedgen_jax.config.tokenizer import (
  FOLDER,
  choose_tokenizer,
  tokenizer_of_run,
)
from synermedgen_jax.core.batch import ImageGeometry
from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.neighbours import did_you_mean
from synermedgen_jax.inference.volume import Synthesiser
from synermedgen_jax.input.tokenizer import Tokenizer, load_tokenizer
from synermedgen_jax.models.bagel import Bagel
from synermedgen_jax.models.compute import Compute
from synermedgen_jax.models.interval_attention import IMPLEMENTATIONS
from synermedgen_jax.slices.framing import SliceSpec
from synermedgen_jax.slices.store import SliceStore
from synermedgen_jax.tasks.prompts import PROMPTS, Prompts


class WorkdirError(UserError):
  """A workdir or output folder cannot be used; one line that names it."""


@dataclasses.dataclass(frozen=True)
class RunRecord:
  """What a run keeps beside its checkpoint, quick to read.

  Attributes:
    config: config of the stage, as plain values.
    slices: canvas, plane, frame and windows of the training slices.
    routes: names of the routes whose targets it was trained to synthesise;
      None = not known, as for imported weights.
    store_fingerprint: of the training slices; None = not known, as for runs of
      older versions.
    step: of a weights folder; None = the checkpoints say it.
  """

  config: Mapping[str, Any]
  slices: SliceSpec
  routes: tuple[str, ...] | None = None
  store_fingerprint: str | None = None
  step: int | None = None

  @classmethod
  def load(cls, workdir: str | Path) -> RunRecord:
    """Reads `config.json` of a workdir, or of a weights folder or its address.

    Raises:
      WorkdirError: the workdir has no valid config.json.
      HubError: the weights folder cannot be downloaded.
    """
    path = Path(weights_folder.local_folder(workdir)) / 'config.json'
    if not path.is_file():
      raise WorkdirError(
        f'{workdir}: has no config.json; train a stage in it with '
        f'python -m synermedgen_jax.main.{did_you_mean(workdir)}'
      )
    try:
      record = json.loads(path.read_bytes())
      config = record['config']
      if 'image' in config:
        config['image'] = _sizes(config['image'])
      routes = record.get('routes')
      return cls(
        config,
        SliceSpec.from_json({'canvas': image_size(config), **record}),
        None if routes is None else tuple(routes),
        record.get('store_fingerprint'),
        record.get('step'),
      )
    except (ValueError, KeyError, TypeError, AttributeError):
      raise WorkdirError(
        f'{path}: is not the config of a run; name the workdir of a run.'
      ) from None


@dataclasses.dataclass(frozen=True)
class Trained:
  """A model with everything that inference needs.

  Attributes:
    model: its shape and how it is computed.
    params: its parameters; their moving average if the run kept one.
    tokenizer: the tokenizer that the model was trained with.
    geometry: sizes of the ViT and VAE images, patch sizes.
    config: config of the stage, as plain values.
    slices: canvas, plane, frame and windows of the training slices.
    routes: as in `RunRecord`.
    steps: step of the checkpoint of each run; empty for weights without one.
  """

  model: Bagel
  params: Any
  tokenizer: Tokenizer
  geometry: ImageGeometry
  config: Mapping[str, Any]
  slices: SliceSpec
  routes: tuple[str, ...] | None = None
  steps: tuple[int, ...] = ()

  @property
  def prompts(self) -> Prompts:
    """The wordings that the model was trained with."""
    # Runs from before `config.prompts` were trained with 'short'.
    return PROMPTS[self.config.get('prompts', 'short')]

  @classmethod
  def load(cls, workdir: str | Path) -> Trained:
    """Loads the newest checkpoint of a workdir, or a weights folder.

    Args:
      workdir: workdir of `main` or `import_bagel`, or a weights folder of
        `ship_weights` or its address hf://OWNER/NAME[@REVISION].

    Raises:
      WorkdirError: the workdir has no valid config.json, or no tokenizer.
      CheckpointError: the workdir has no complete checkpoint, or it lacks a
        parameter of its model.
      HubError: the weights folder cannot be downloaded.
    """
    workdir = Path(weights_folder.local_folder(workdir))
    record = RunRecord.load(workdir)
    tokenizer = _load_tokenizer(workdir)
    steps = () if record.step is None else (record.step,)
    if weights_folder.holds_weights(workdir):
      shape, params = weights_folder.load_weights(workdir)
    else:
      checkpoints = workdir / 'checkpoints'
      steps = (saved_model.newest_step(checkpoints),)
      shape, params = saved_model.load_model(checkpoints, which=str(*steps))
    require_all(workdir, shape, params)
    compute = _compute(record.config, params)
    return cls(
      Bagel(shape, compute),
      _on_device(params, compute.dtype),
      tokenizer,
      shape.image_geometry(**record.config['image']),
      record.config,
      record.slices,
      record.routes,
      steps,
    )

  @classmethod
  def from_config(cls, config: ConfigDict) -> Trained:
    """Loads the model that training with `config` would start from.

    Args:
      config: config of a stage; `init_from` is a weights folder, its address
        on the hub, or a workdir.

    Raises:
      ConfigError: a key of the config is invalid; the message names it.
      CheckpointError: `init_from` cannot be read.
    """
    if not config.init_from:
      raise ConfigError(
        'config.init_from is empty; set it to a weights folder or a workdir.'
      )
    config = config.copy_and_resolve_references()
    with key_errors('init_from'):
      config.init_from = weights_folder.pinned(config.init_from)
    shape = model_shape(config)
    _, tokenizer = choose_tokenizer(config)
    params = initial_params(config, shape)
    with key_errors('image'):
      geometry = shape.image_geometry(**config.image)
    slices = SliceSpec(geometry.vae_size)
    if config.store:
      with key_errors('store'):
        store = SliceStore.open(config.store)
      slices = store.slices
    compute = _compute(config, params)
    return cls(
      Bagel(shape, compute),
      _on_device(params, compute.dtype),
      tokenizer,
      geometry,
      config.to_dict(),
      slices,
    )

  @property
  def sampling(self) -> SamplingConfig:
    """Timesteps and guidance of the run's config.

    Raises:
      WorkdirError: config.sampling is empty.
    """
    if not self.config['sampling']:
      raise WorkdirError(
        'config.sampling is empty, as in Stage I runs of older versions; '
        'train again, or give the weights with --config and '
        '--config.init_from.'
      )
    return SamplingConfig.from_config(self.config)

  def synthesiser(
    self, sampling: SamplingConfig | None = None, *, batch_size: int = 16
  ) -> Synthesiser:
    """A `Synthesiser` with this model.

    Args:
      sampling: timesteps and guidance; None = `self.sampling`.
      batch_size: maximum number of slices per batch.

    Raises:
      WorkdirError: `sampling` is None and the config has none.
      UserError: a setting has no effect on this model.
    """
    sampling = sampling or self.sampling
    sampling.check(self.model.config)
    return Synthesiser(
      self.model,
      self.params,
      self.tokenizer,
      self.geometry,
      sampling,
      self.prompts,
      batch_size=batch_size,
    )


def _sizes(image: Mapping[str, Any]) -> dict[str, Any]:
  """The key `image` of a config; older runs name the sides of squares."""
  sides = {'vit_side': 'vit_size', 'vae_side': 'vae_size'}
  return {
    sides.get(key, key): [value] * 2 if key in sides else value
    for key, value in image.items()
  }


def _compute(config: Mapping[str, Any] | ConfigDict, params: Any) -> Compute:
  """How the run computed its model, with attention that this platform has."""
  if 'compute' in config:
    compute = compute_of(config)
    attention = IMPLEMENTATIONS.get(compute.attention)
    if attention and attention.platform not in (None, jax.default_backend()):
      compute = dataclasses.replace(compute, attention=None)
    return compute
  # Runs of older versions lack the key. Their position tables were frozen and
  # kept the compute dtype.
  return Compute(dtype=params['vit_pos_embed'].dtype.name)


def _on_device(params: Any, dtype: str) -> Any:
  """Parameters on the device in the dtype of the computation.

  A run keeps the trained ones in float32, which would take twice the memory.
  """
  return jax.tree.map(lambda x: jnp.asarray(x, dtype), params)


def _load_tokenizer(workdir: Path) -> Tokenizer:
  try:
    name = tokenizer_of_run(workdir)
    if name:
      return load_tokenizer(name)
  except (ValueError, OSError) as error:
    raise WorkdirError(f'{workdir}: tokenizer: {error}') from None
  raise WorkdirError(
    f'{workdir}: has no tokenizer; put its tokenizer.json into '
    f'{workdir / FOLDER}.'
  )
