"""A classifier of modalities that is independent of the evaluated model.

A small convolutional network learns from acquired slices of the training
subjects which modality a slice shows. Slices are mirrored, blurred and noised
at random, so that a smooth synthesis is not taken for another modality on that
account.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int
from scipy import ndimage

from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.modalities import Modality
from synermedgen_jax.core.progress import each
from synermedgen_jax.input.pixels import to_pixels
from synermedgen_jax.slices.store import SliceStore
from synermedgen_jax.tasks.pairs import Pool

_SIDE = 64  # pixels; slices of other sizes are resized
_WIDTHS = (16, 32, 64, 96)
_SLICES = 320  # per modality
_STEPS, _BATCH, _RATE = 250, 64, 3e-3
_BLUR, _NOISE = 1.5, 0.1  # largest standard deviations: pixels; of values

Images = Float[np.ndarray, 'n h w']


class _Network(nn.Module):
  classes: int

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w']) -> Float[Array, 'n c']:
    x = x[..., None]
    for width in _WIDTHS:
      x = nn.Conv(width, (3, 3), strides=2)(x)
      x = nn.relu(nn.GroupNorm(8)(x))
    x = jnp.concatenate([x.mean((1, 2)), x.max((1, 2))], axis=-1)
    return nn.Dense(self.classes)(x)


@dataclasses.dataclass(frozen=True)
class ModalityClassifier:
  """A trained classifier.

  Attributes:
    modalities: the classes.
    params: parameters of the network.
  """

  modalities: tuple[Modality, ...]
  params: Any

  @classmethod
  def train(cls, store: SliceStore, *, seed: int = 0) -> ModalityClassifier:
    """Trains a classifier on the training subjects of a store.

    Args:
      store: the slices.
      seed: random seed of parameters, slices and their changes.

    Raises:
      UserError: the store has no training subject.
    """
    cases = store.split('train')
    if not cases:
      raise UserError(
        f'{store.path}: has no training subject, from which the classifier of '
        'control learns; leave out control.'
      )
    rng = np.random.default_rng(seed)
    modalities, images, labels = _training_slices(store, Pool(cases), rng)
    network = _Network(len(modalities))
    params = network.init(jax.random.key(seed), images[:1])
    return cls(modalities, _fit(network, params, images, labels, rng))

  def classify(self, images: Images) -> list[Modality]:
    """The modality that each slice shows.

    Args:
      images: slices in [-1, 1], of any height and width.
    """
    count = len(images)
    size = 1 << max(count - 1, 0).bit_length()  # few shapes are compiled
    padded = np.pad(_small(images), [(0, size - count), (0, 0), (0, 0)])
    logits = _logits(len(self.modalities), self.params, padded)
    return [self.modalities[i] for i in np.asarray(logits[:count]).argmax(1)]


@functools.partial(jax.jit, static_argnums=0)
def _logits(
  classes: int, params: Any, images: Float[Array, 'n h w']
) -> Float[Array, 'n c']:
  return _Network(classes).apply(params, images)


def _small(images: Iterable[np.ndarray]) -> Images:
  """Images of any size as those of the network."""
  return np.stack(
    [to_pixels(image, (_SIDE, _SIDE), 1)[..., 0] for image in images]
  ).astype(np.float32)


def _training_slices(
  store: SliceStore, pool: Pool, rng: np.random.Generator
) -> tuple[tuple[Modality, ...], Images, Int[np.ndarray, ' n']]:
  """Acquired slices, equally many of every modality that the store has."""
  modalities = tuple(m for m in Modality if pool.by_modality.get(m))
  wanted: list[tuple[str, Modality, int]] = []
  for modality in modalities:
    cases: Sequence = pool.by_modality[modality]
    for number in range(_SLICES):
      case = cases[number % len(cases)]
      wanted.append((case.id, modality, int(rng.choice(case.usable))))
  images = _small(store.read_slices(wanted))
  return modalities, images, np.repeat(np.arange(len(modalities)), _SLICES)


def _changed(image: Images, rng: np.random.Generator) -> Images:
  """A batch with random mirror images, blur and noise."""
  image = image[:, :, ::-1] if rng.random() < 0.5 else image
  if rng.random() < 0.7:
    blur = rng.uniform(0, _BLUR)
    image = ndimage.gaussian_filter(image, (0, blur, blur))
  noise = rng.standard_normal(image.shape, np.float32)
  return image + np.float32(rng.uniform(0, _NOISE)) * noise


def _fit(network, params, images, labels, rng) -> Any:
  tx = optax.adam(optax.cosine_decay_schedule(_RATE, _STEPS))

  @jax.jit
  def step(params, state, images, labels):
    def loss(params):
      logits = network.apply(params, images)
      losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
      return losses.mean()

    updates, state = tx.update(jax.grad(loss)(params), state, params)
    return optax.apply_updates(params, updates), state

  state = tx.init(params)
  for _ in each(range(_STEPS), 'classifier', _STEPS, 'step'):
    rows = rng.integers(len(images), size=_BATCH)
    batch = _changed(images[rows], rng)
    params, state = step(params, state, batch, labels[rows])
  return jax.device_get(params)
