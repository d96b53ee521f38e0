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
from synermedgen_jax.core.modalities import Route, all_routes
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
from synermedgen_jax.tasks import synthesis
from synermedgen_jax.tasks.example import Example, SliceRef
from synermedgen_jax.tasks.prompts import Prompts

Slices = Float[np.ndarray, 'z h w']


@dataclasses.dataclass(frozen=True)
class Synthesiser:
  """A model that synthesises slices of one modality from another.

  Attributes:
    model: its shape and how it is computed.
    params: its parameters.
    tokenizer: encodes prompts.
    geometry: sizes of the ViT and VAE images, patch sizes.
    sampling: timesteps, guidance, and whether the model first describes the
      source.
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
    slices: Slices,
    *,
    seed: int = 0,
    progress: Callable[[int], object] | None = None,
  ) -> Slices:
    """Synthesises slices of the route's target from slices of its source.

    Slices are fitted to the model's images and back; see `input.pixels`.

    Args:
      route: source -> target.
      slices: slices in [-1, 1], of any height and width.
      seed: random seed of the noise, which depends only on the seed and the
        index of the slice.
      progress: called after each batch with its number of slices, such as
        `tqdm.update`.

    Returns:
      Slices of the same shape, float32 in [-1, 1].
    """
    slices = np.asarray(slices, np.float32)
    prompt = self._prompt(route)

    def read(ref):
      return slices[ref.index]

    def run(indices):
      examples = [_at(prompt, i) for i in indices]
      capacities = self._capacities
      if self.sampling.describe_tokens:
        examples = self._described(examples, read)
        capacities = describing.widened(
          capacities, examples, self.tokenizer, self.geometry
        )
      prompts = pack_prompts(
        examples, self.tokenizer, self.geometry, read, capacities
      )
      return _sample_pictures(
        self.model,
        self.params,
        prompts,
        seed,
        indices,
        self.geometry.latent_grid,
        self.sampling,
      )

    return self._run(run, slices, progress)

  def traced(self, route: Route) -> jax.extend.core.ClosedJaxpr:
    """The program that synthesises one slice of a route, for its operations.

    Attention is dense, and the text of `describe_tokens` is not part of it.
    """
    compute = Compute(self.model.compute.dtype, attention='xla')
    blank = np.zeros(self.geometry.vae_size, np.float32)
    prompts = pack_prompts(
      [self._prompt(route)],
      self.tokenizer,
      self.geometry,
      lambda ref: blank,
      self._capacities,
    )
    sampled = functools.partial(
      _sample_pictures,
      Bagel(self.model.config, compute),
      grid=self.geometry.latent_grid,
      config=self.sampling,
    )
    indices = np.zeros(1, np.int32)
    return jax.make_jaxpr(sampled)(self.params, prompts, 0, indices=indices)

  def reconstruct(
    self,
    slices: Slices,
    *,
    progress: Callable[[int], object] | None = None,
  ) -> Slices:
    """Encodes and decodes slices: the upper bound of synthesis quality.

    A model of codes encodes them to codes.

    Arguments and result are those of `synthesise`.
    """
    slices = np.asarray(slices, np.float32)

    def run(indices):
      images = [
        to_pixels(slices[i], self.geometry.vae_size, self.geometry.channels)
        for i in indices
      ]
      return _autoencode(self.model, self.params, np.stack(images))

    return self._run(run, slices, progress)

  def _run(self, run, slices, progress) -> Slices:
    """Runs all batches; resizes their images and clips them to [-1, 1]."""
    out = np.empty(slices.shape, np.float32)
    for indices, count in self._batches(len(slices)):
      images = np.asarray(run(indices))[:count]
      for index, image in zip(indices, images, strict=False):
        out[index] = from_pixels(image, slices.shape[1:])
      if progress:
        progress(count)
    return np.clip(out, -1.0, 1.0)

  def _batches(self, total: int) -> Iterator[tuple[np.ndarray, int]]:
    """Yields the indices of each batch and its number of distinct slices.

    The last batch repeats its last index. A short volume is one batch padded
    to a power of two, so that few batch shapes are compiled.
    """
    size = min(self.batch_size, 1 << (total - 1).bit_length())
    for start in range(0, total, size):
      indices = np.arange(start, start + size)
      yield np.minimum(indices, total - 1), min(size, total - start)

  def _prompt(self, route: Route) -> Example:
    """The prompt of a route, for slice 0."""
    source, target = (
      SliceRef('', modality, 0) for modality in (route.source, route.target)
    )
    return synthesis.prompt(route, source, target, self.prompts)

  def _described(
    self, prompts: Sequence[Example], read_slice: ReadSlice
  ) -> list[Example]:
    """The prompts, each with the model's description of its source."""
    answerer = Answerer(
      self.model,
      self.params,
      self.tokenizer,
      self.geometry,
      read_slice,
      batch_size=len(prompts),
      max_tokens=self.sampling.describe_tokens,
    )
    routes = [describing.question(self._prompt(r)) for r in all_routes()]
    texts = answerer.answer(
      [describing.question(prompt) for prompt in prompts],
      capacity=answerer.capacity_for(routes),
    )
    return list(map(describing.described, prompts, texts))

  @functools.cached_property
  def _capacities(self) -> Mapping[Context, Capacity]:
    """Capacities for the prompt of any route: all routes share one program."""
    prompts = [self._prompt(route) for route in all_routes()]
    return {
      context: prompt_capacity(prompts, self.tokenizer, self.geometry, context)
      for context in self.sampling.guidance.contexts
    }


def _at(prompt: Example, index: int) -> Example:
  """The prompt with its images at slice `index`."""
  spans = tuple(
    s
    if s.image is None
    else dataclasses.replace(s, image=dataclasses.replace(s.image, index=index))
    for s in prompt.spans
  )
  return dataclasses.replace(prompt, spans=spans)


@functools.partial(jax.jit, static_argnames=('model', 'grid', 'config'))
def _sample_pictures(
  model: Bagel,
  params,
  prompts: Mapping[Context, Prompt],
  seed: int,
  indices: Int[Array, ' b'],
  grid: Size,
  config: SamplingConfig,
) -> Float[Array, 'b h w']:
  """Generates latents and decodes them, one image per row.

  A flow starts from seeded noise; codes are the most probable ones.
  """
  if model.config.generation != 'flow':
    latents = generate_codes(model, params, prompts, config)
    decoded = model.apply(
      {'params': params},
      latents.reshape(len(indices), *grid, -1),
      method=Bagel.decode_latents,
    )
    return jnp.mean(decoded, axis=-1)
  key = jax.random.key(seed)
  shape = (math.prod(grid), model.config.latent_dim)
  noise = jax.vmap(
    lambda index: jax.random.normal(jax.random.fold_in(key, index), shape)
  )(indices)
  pictures = sample_pictures(model, params, prompts, noise, grid, config)
  return jnp.mean(pictures, axis=-1)


@functools.partial(jax.jit, static_argnames=('model',))
def _autoencode(
  model: Bagel, params, images: Float[Array, 'b h w c']
) -> Float[Array, 'b h w']:
  decoded = model.apply({'params': params}, images, method=Bagel.reconstruct)
  return jnp.mean(decoded, axis=-1)
