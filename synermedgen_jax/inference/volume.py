"""Synthesises the slices of a volume in batches of equal shape."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from synermedgen_jax.config.sampling import Context, SamplingConfig
from synermedgen_jax.core.batch import Capacity, ImageGeometry
from synermedgen_jax.core.compiling import compiling
from synermedgen_jax.core.modalities import Route, routes_with
from synermedgen_jax.core.size import Size
from synermedgen_jax.inference import describing
from synermedgen_jax.inference.answering import Answerer
from synermedgen_jax.inference.code_sampling import generate_codes
from synermedgen_jax.inference.sampling import (
  Prompt,
  pack_prompts,
  prompt_capacity,
  sample_pictures,
)
from synermedgen_jax.input.packing import ReadSlice
from synermedgen_jax.input.pixels import from_pixels, to_pixels
from synermedgen_jax.input.tokenizer import Tokenizer
from synermedgen_jax.models.bagel import Bagel
from synermedgen_jax.models.compute import Compute
from synermedgen_jax.tasks import slabs, synthesis
from synermedgen_jax.tasks.example import Example
from synermedgen_jax.tasks.prompts import Prompts

Slices = Float[np.ndarray, 'z h w']


@dataclasses.dataclass(frozen=True)
class Synthesiser:
  """A model that synthesises slices of one modality from others.

  Attributes:
    model: its shape and how it is computed.
    params: its parameters.
    tokenizer: encodes prompts.
    geometry: sizes of the ViT and VAE images, patch sizes.
    sampling: timesteps, guidance, slab, and whether the model first describes
      the sources.
    prompts: the wordings that the model was trained with.
    batch_size: maximum number of slices per batch; results do not depend on
      it.
  """

  model: Bagel
  params: Any
  tokenizer: Tokenizer
  geometry: ImageGeometry
  sampling: SamplingConfig
  prompts: Prompts
  batch_size: int = 16

  def synthesise(
    self,
    route: Route,
    sources: Float[np.ndarray, 's z h w'],
    *,
    seed: int = 0,
    instruction: Route | None = None,
    progress: Callable[[int], object] | None = None,
  ) -> Slices:
    """Synthesises slices of the route's target from slices of its sources.

    Slices are fitted to the model's images and back; see `input.pixels`. Slabs
    of `sampling.slab` slices overlap by half, and where they do, the result is
    their mean, weighted by the distance from the ends of the slab.

    Args:
      route: sources -> target.
      sources: slices of each source in [-1, 1], of any height and width, in
        the order of `route.sources`; neighbours in the volume, if slabs have
        several.
      seed: random seed of the noise, which depends only on the seed and the
        index of the slice.
      instruction: the route whose description is the instruction; None =
        `route`. Another one shows whether the model follows it.
      progress: called after each batch with its number of slices, such as
        `Bar.update`.

    Returns:
      Slices (z, h, w) of the same height and width, float32 in [-1, 1].
    """
    sources = np.asarray(sources, np.float32)
    images = dict(zip(route.sources, sources, strict=True))
    images[route.target] = sources[0]  # tokenised, and not used

    def read(ref):
      return images[ref.modality][ref.index]

    def run(windows):
      prompt = self._prompt(route, instruction=instruction)
      examples = [slabs.widen(prompt, window) for window in windows]
      capacities = self._capacities(len(sources))
      if self.sampling.describes:
        examples = self._described(examples, read)
        capacities = describing.widened(
          capacities,
          examples,
          self.tokenizer,
          self.geometry,
          self.sampling.withheld,
        )
      prompts = pack_prompts(
        examples,
        self.tokenizer,
        self.geometry,
        read,
        capacities,
        self.sampling.withheld,
      )
      with compiling('synthesis'):
        return _sample_pictures(
          self.model,
          self.params,
          prompts,
          seed,
          np.array(windows),
          self.geometry.latent_grid,
          self.sampling,
        )

    return self._run(run, sources[0].shape, progress, self.sampling.slab)

  def traced(self, route: Route) -> jax.extend.core.ClosedJaxpr:
    """The program that synthesises one slab of a route, for its operations.

    Attention is dense, and the text of `describe_tokens` is not part of it.
    """
    compute = Compute(self.model.compute.dtype, attention='xla')
    blank = np.zeros(self.geometry.vae_size, np.float32)
    slab = range(self.sampling.slab)
    prompts = pack_prompts(
      [slabs.widen(self._prompt(route), slab)],
      self.tokenizer,
      self.geometry,
      lambda ref: blank,
      self._capacities(len(route.sources)),
      self.sampling.withheld,
    )
    sampled = functools.partial(
      _sample_pictures,
      Bagel(self.model.config, compute),
      grid=self.geometry.latent_grid,
      config=self.sampling,
    )
    indices = np.array([slab])
    return jax.make_jaxpr(sampled)(self.params, prompts, 0, indices=indices)

  def reconstruct(
    self,
    slices: Slices,
    *,
    progress: Callable[[int], object] | None = None,
  ) -> Slices:
    """Encodes and decodes slices: the upper bound of synthesis quality.

    A model of codes encodes them to codes.

    Args:
      slices: slices in [-1, 1], of any height and width.
      progress: as of `synthesise`.

    Returns:
      Slices of the same shape, float32 in [-1, 1].
    """
    slices = np.asarray(slices, np.float32)

    def run(windows):
      images = [
        to_pixels(slices[i], self.geometry.vae_size, self.geometry.channels)
        for (i,) in windows
      ]
      with compiling('the autoencoder'):
        return _autoencode(self.model, self.params, np.stack(images))[:, None]

    return self._run(run, slices.shape, progress)

  def _run(
    self, run, shape: tuple[int, int, int], progress, slab: int = 1
  ) -> Slices:
    """Runs all batches of slabs; resizes their images and combines them."""
    out = np.zeros(shape, np.float32)
    weights = np.zeros((len(out), 1, 1), np.float32)
    done = 0
    for windows, count in self._batches(slabs.cover(len(out), slab)):
      images = np.asarray(run(windows))[:count]
      for window, of_slab in zip(windows, images, strict=False):
        for place, (index, image) in enumerate(
          zip(window, of_slab, strict=True)
        ):
          weight = min(place + 1, len(window) - place)
          resized = from_pixels(image, shape[1:])
          out[index] += weight * np.clip(resized, -1.0, 1.0)
          weights[index] += weight
      if progress:
        reached = windows[count - 1].stop
        progress(reached - done)
        done = reached
    return out / weights

  def _batches(
    self, windows: Sequence[range]
  ) -> Iterator[tuple[Sequence[range], int]]:
    """Yields the slabs of each batch and the number of distinct ones.

    The last batch repeats its last slab. A short volume is one batch padded to
    a power of two, so that few batch shapes are compiled.
    """
    total = len(windows)
    size = max(self.batch_size // max(map(len, windows), default=1), 1)
    size = min(size, 1 << (total - 1).bit_length())
    for start in range(0, total, size):
      batch = windows[start : start + size]
      yield [*batch, *[batch[-1]] * (size - len(batch))], len(batch)

  def _prompt(
    self, route: Route, index: int = 0, instruction: Route | None = None
  ) -> Example:
    return synthesis.prompt(
      route, '', index, self.prompts, instruction=instruction
    )

  def _described(
    self, prompts: Sequence[Example], read_slice: ReadSlice
  ) -> list[Example]:
    """The prompts, each with the model's description of its sources."""
    answerer = Answerer(
      self.model,
      self.params,
      self.tokenizer,
      self.geometry,
      read_slice,
      batch_size=len(prompts),
      max_tokens=self.sampling.describe_tokens,
    )
    asked, alike = (
      [describing.question(p, self.sampling.withheld) for p in group]
      for group in (prompts, self._prompts_alike(len(prompts[0].route.sources)))
    )
    texts = answerer.answer(asked, capacity=answerer.capacity_for(alike))
    return list(map(describing.described, prompts, texts))

  def _prompts_alike(self, sources: int) -> list[Example]:
    """The prompts of all routes with that many sources."""
    return [self._prompt(route) for route in routes_with(sources)]

  def _capacities(self, sources: int) -> Mapping[Context, Capacity]:
    """Capacities for any route with that many sources: they share a program."""
    if sources not in self._known_capacities:
      slab = range(self.sampling.slab)
      prompts = [slabs.widen(p, slab) for p in self._prompts_alike(sources)]
      self._known_capacities[sources] = {
        c: prompt_capacity(
          prompts,
          self.tokenizer,
          self.geometry,
          c,
          self.sampling.withheld,
        )
        for c in self.sampling.guidance.contexts
      }
    return self._known_capacities[sources]

  @functools.cached_property
  def _known_capacities(self) -> dict[int, Mapping[Context, Capacity]]:
    """Number of sources -> capacities."""
    return {}


@functools.partial(jax.jit, static_argnames=('model', 'grid', 'config'))
def _sample_pictures(
  model: Bagel,
  params,
  prompts: Mapping[Context, Prompt],
  seed: int,
  indices: Int[Array, 'b k'],
  grid: Size,
  config: SamplingConfig,
) -> Float[Array, 'b k h w']:
  """Generates latents and decodes them, the `k` slices of one slab per row.

  A flow starts from seeded noise; codes are the most probable ones.
  """
  if model.config.generation != 'flow':
    latents = generate_codes(model, params, prompts, config)
    decoded = model.apply(
      {'params': params},
      latents.reshape(len(indices), *grid, -1),
      method=Bagel.decode_latents,
    )
    return jnp.mean(decoded, axis=-1)[:, None]
  key = jax.random.key(seed)
  shape = (math.prod(grid), model.config.latent_dim)
  image = tuple(side * model.config.latent_stride for side in grid)

  def of_slice(index):
    latents = continued_noise(key, index, shape, config.grain)
    texture = [
      continued_noise(jax.random.fold_in(key, draw), index, image, config.grain)
      for draw in range(config.draws)
    ]
    return latents, jnp.stack(texture)

  noise, texture = jax.vmap(jax.vmap(of_slice))(indices)
  noise = noise.reshape(len(indices), -1, shape[-1])
  texture = jnp.moveaxis(texture, 2, 0)
  pictures = sample_pictures(
    model, params, prompts, noise, texture, grid, config
  )
  return jnp.mean(pictures, axis=-1)


def continued_noise(
  key: jax.Array, index: Int[Array, ''], shape: tuple[int, ...], grain: float
) -> Array:
  """Standard normal noise of a slice, which continues in its neighbours.

  It is interpolated between independent images, `grain` slices apart, and
  scaled to deviation 1. The noise of slices 2 * `grain` apart is independent.

  Args:
    key: random key of the volume.
    index: of the slice.
    shape: of the noise.
    grain: in slices; 1 = the noise of every slice is independent.
  """
  place = index / grain
  before = jnp.floor(place)
  share = place - before
  first, second = (
    jax.random.normal(jax.random.fold_in(key, node), shape)
    for node in (before.astype(int), before.astype(int) + 1)
  )
  scale = jnp.sqrt((1 - share) ** 2 + share**2)
  return ((1 - share) * first + share * second) / scale


@functools.partial(jax.jit, static_argnames=('model',))
def _autoencode(
  model: Bagel, params, images: Float[Array, 'b h w c']
) -> Float[Array, 'b h w']:
  decoded = model.apply({'params': params}, images, method=Bagel.reconstruct)
  return jnp.mean(decoded, axis=-1)
