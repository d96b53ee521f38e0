"""A trained stage, read back from its workdir."""

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
from synermedgen_jax.config.errors import ConfigError, key_errors
from synermedgen_jax.config.model import starting_point
from synermedgen_jax.core.batch import ImageGeometry
from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.modalities import Modality
from synermedgen_jax.inference.sampling import Guidance, SamplingConfig
from synermedgen_jax.inference.volume import Synthesiser
from synermedgen_jax.input.tokenizer import Tokenizer, load_tokenizer
from synermedgen_jax.models.bagel import BagelConfig
from synermedgen_jax.slices.store import SliceStore
from synermedgen_jax.slices.windows import (
  FIXED_WINDOWS,
  Window,
  windows_from_json,
)


class WorkdirError(UserError):
  """A workdir that holds no trained stage; one line that names it."""


@dataclasses.dataclass(frozen=True)
class Trained:
  """What inference needs.

  Attributes:
    model: the model's shape.
    params: its parameters, averaged where the run kept an average.
    tokenizer: as trained with.
    geometry: how slices become tokens.
    config: the stage's config, plain values.
    plane: of the slices that it was trained on.
    frame: what filled their canvas (`slices.framing`).
    windows: what [-1, 1] means, of modalities with a physical scale.
  """

  model: BagelConfig
  params: Any
  tokenizer: Tokenizer
  geometry: ImageGeometry
  config: Mapping[str, Any]
  plane: str
  frame: str
  windows: Mapping[Modality, Window]

  @classmethod
  def load(cls, workdir: str | Path) -> Trained:
    """Reads a workdir that `main` filled.

    Raises:
      WorkdirError: it holds no config, or one whose tokenizer is not there.
      CheckpointError: it holds no whole checkpoint.
    """
    workdir = Path(workdir)
    path = workdir / 'config.json'
    if not path.is_file():
      raise WorkdirError(
        f'{workdir}: holds no config.json; train a stage there with '
        'python -m synermedgen_jax.main.'
      )
    try:
      record = json.loads(path.read_text())
      config = record['config']
      windows = windows_from_json(record.get('windows', {}))
    except (ValueError, KeyError, TypeError):
      raise WorkdirError(f'{path}: is not the config of a run.') from None
    try:
      tokenizer = load_tokenizer(config['tokenizer'])
    except (ValueError, OSError) as error:
      raise WorkdirError(f'{path}: tokenizer: {error}') from None
    model, params = saved_model.load_model(workdir / 'checkpoints')
    return cls(
      model,
      jax.tree.map(jnp.asarray, params),
      tokenizer,
      model.image_geometry(**config['image']),
      config,
      record.get('plane', 'axial'),
      record.get('frame', 'volume'),
      windows,
    )

  @classmethod
  def from_config(cls, config: ConfigDict) -> Trained:
    """The model that training by `config` would start from, as it is.

    Args:
      config: of a stage; `init_from` names the weights or the run that holds
        them, and no step is made.

    Raises:
      ConfigError: naming the key that is wrong.
      CheckpointError: what `init_from` names cannot be read.
    """
    if not config.init_from:
      raise ConfigError(
        'config.init_from is empty: name the weights that are measured.'
      )
    model, params = starting_point(config)
    with key_errors('tokenizer'):
      tokenizer = load_tokenizer(config.tokenizer)
    with key_errors('image'):
      geometry = model.image_geometry(**config.image)
    store = None
    if config.store:
      with key_errors('store'):
        store = SliceStore.open(config.store)
    return cls(
      model,
      jax.tree.map(jnp.asarray, params),
      tokenizer,
      geometry,
      config.to_dict(),
      store.plane if store else 'axial',
      store.frame if store else 'volume',
      store.windows if store else FIXED_WINDOWS,
    )

  def synthesiser(
    self, *, points: int | None = None, batch_size: int = 16
  ) -> Synthesiser:
    """The model at work on slices, sampling as its config says.

    Args:
      points: of the sampler, instead of the config's.
      batch_size: slices at a time.
    """
    sampling = dict(self.config['sampling'])
    if not sampling:
      raise WorkdirError(
        'config.sampling is empty, as in runs of Stage I by earlier code: '
        'train again, or name the weights with --config and '
        '--config.init_from.'
      )
    guidance = dict(sampling.pop('guidance'))
    guidance['interval'] = tuple(guidance['interval'])
    if points is not None:
      sampling['points'] = points
    return Synthesiser(
      self.model,
      self.params,
      self.tokenizer,
      self.geometry,
      SamplingConfig(**sampling, guidance=Guidance(**guidance)),
      batch_size=batch_size,
    )
