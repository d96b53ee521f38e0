"""What a system of the arena is: networks, losses, synthesis and its facts.

A step updates all networks of a system at once. Each term of the loss reaches
one network only: the others appear as constants (`constant`). Published
adversarial programs update one network after the other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from synermedgen_jax.baselines.pair_data import PairBatch
from synermedgen_jax.core.size import Size
from synermedgen_jax.core.trees import Flat
from synermedgen_jax.models.autoencoder import AutoencoderConfig
from synermedgen_jax.models.compute import Compute

Sums = dict[str, tuple[Array, Array]]  # term -> (sum, count)

_INITIAL = 2**31 - 1
SIMULTANEOUS = 'all networks are updated at once, not one after the other'


@dataclasses.dataclass(frozen=True)
class Setting:
  """What a system translates; each system adds the shapes of its networks.

  Attributes:
    size: height and width of its images.
    modalities: names of the modalities of its routes, sorted.
    conditioned: the networks are told source and target, because one network
      serves several routes.
    autoencoder: shape of the frozen autoencoder, for systems in its latents.
  """

  size: Size
  modalities: tuple[str, ...]
  conditioned: bool
  autoencoder: AutoencoderConfig | None = None

  @property
  def planes(self) -> int:
    """Channels that tell source and target."""
    return 2 * len(self.modalities) if self.conditioned else 0


@dataclasses.dataclass(frozen=True)
class System:
  """Base of all systems.

  Attributes:
    config: setting and shapes of the networks.
    compute: how they are computed.
    title: name in tables.
    paired: it learns from pairs of one subject.
    pair: one training serves both directions of two modalities.
    weights: term of the loss -> weight.
    departures: differences from the published program, one line each.
    used: networks that synthesis needs.
    frozen: networks that are not trained.
    carries: `sums` takes and returns `TrainState.memory`.
    stages: suffixes of the presets that are trained one after the other, and
      their shares of a budget.
  """

  config: Any
  compute: Compute

  title: ClassVar[str]
  paired: ClassVar[bool] = True
  pair: ClassVar[bool] = False
  weights: ClassVar[Mapping[str, float]]
  departures: ClassVar[tuple[str, ...]] = ()
  used: ClassVar[tuple[str, ...]] = ('generator',)
  frozen: ClassVar[tuple[str, ...]] = ()
  carries: ClassVar[bool] = False
  stages: ClassVar[Mapping[str, float]] = {'': 1.0}

  @classmethod
  def preset(cls, name: str, setting: Setting) -> Any:
    """The config of a preset: 'published', or 'small' for 64 pixels.

    Raises:
      ValueError: there is no such preset.
    """
    raise NotImplementedError

  def init_networks(self, keys: Sequence[jax.Array]) -> dict[str, Any]:
    """Random parameters of every network."""
    raise NotImplementedError

  def sums(self, params, batch: PairBatch, key: jax.Array) -> Sums:
    """Sum and count of every term of the loss.

    Args:
      params: parameters of every network.
      batch: pairs of slices.
      key: random key of the step.
    """
    raise NotImplementedError

  def synthesise(
    self,
    params,
    source: Float[Array, 'b h w 1'],
    source_ids: Int[Array, ' b'],
    target_ids: Int[Array, ' b'],
    keys: jax.Array,
  ) -> Float[Array, 'b h w 1']:
    """Images of the target, in [-1, 1].

    Args:
      params: parameters of the networks in `used`.
      source: images in [-1, 1].
      source_ids, target_ids: modalities, as in `PairBatch`; all images have
        one route.
      keys: a random key per image, if the system samples.
    """
    raise NotImplementedError

  def reconstruct(
    self, params, images: Float[Array, 'b h w 1']
  ) -> Float[Array, 'b h w 1']:
    """Images as the system can at best make them.

    Args:
      params: as of `synthesise`.
      images: images in [-1, 1].
    """
    del params
    return images

  def initial_params(self, key: jax.Array) -> Any:
    """Random float32 parameters of all networks."""
    # Steps fold their number into the same key.
    return self.init_networks(
      jax.random.split(jax.random.fold_in(key, _INITIAL), 8)
    )

  def abstract_params(self) -> Any:
    """Shapes of the parameters."""
    return jax.eval_shape(self.initial_params, jax.random.key(0))

  def initial_memory(self) -> Flat:
    """`TrainState.memory` before the first step."""
    return {}

  @property
  def dtype(self) -> jnp.dtype:
    return jnp.dtype(self.compute.dtype)

  def told(
    self,
    image: Float[Array, 'b h w c'],
    source_ids: Int[Array, ' b'],
    target_ids: Int[Array, ' b'],
  ) -> Float[Array, 'b h w d']:
    """An image with the planes that tell source and target, if any."""
    condition = self.condition(source_ids, target_ids)
    if condition is None:
      return image
    planes = condition[:, None, None]
    shape = (*image.shape[:3], planes.shape[-1])
    return jnp.concatenate([image, jnp.broadcast_to(planes, shape)], axis=-1)

  def condition(
    self, source_ids: Int[Array, ' b'], target_ids: Int[Array, ' b']
  ) -> Float[Array, 'b k'] | None:
    """Source and target as two one-hot vectors; None = not conditioned."""
    if not self.config.setting.conditioned:
      return None
    count = len(self.config.setting.modalities)
    hot = [jax.nn.one_hot(ids, count) for ids in (source_ids, target_ids)]
    return jnp.concatenate(hot, axis=-1)

  def example_condition(self) -> Float[Array, '1 k'] | None:
    """A condition, to initialise a network."""
    return self.condition(*2 * [jnp.zeros(1, jnp.int32)])

  def example(self, channels: int = 1) -> Float[Array, '1 h w c']:
    """Zeros of the shape of an image, to initialise a network."""
    return jnp.zeros((1, *self.config.setting.size, channels))


def constant(tree: Any) -> Any:
  """The tree without gradient."""
  return jax.lax.stop_gradient(tree)


def mean_term(values: Float[Array, 'b ...']) -> tuple[Array, Array]:
  """The term of a loss that is averaged over images: its sum and count."""
  each = values.astype(jnp.float32).mean(tuple(range(1, values.ndim)))
  return each.sum(), jnp.float32(len(each))
