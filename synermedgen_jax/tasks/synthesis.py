"""Synthesis and reconstruction: the examples that end with a noised image."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from synermedgen_jax.core.modalities import Route
from synermedgen_jax.tasks import slabs
from synermedgen_jax.tasks.example import (
  Example,
  SliceRef,
  text,
  vae_image,
  vit_image,
)
from synermedgen_jax.tasks.pairs import Pair, Pool
from synermedgen_jax.tasks.prompts import Prompts


def build(pair: Pair, pool: Pool, rng: np.random.Generator) -> Example:
  """Source slices, one of the route's descriptions -> target slices.

  Args:
    pair: the pair of slices.
    pool: the wordings, the number of sources and the size of the slab around
      the pair.
    rng: draws further sources, then the description.
  """
  route = pool.draw_route(pair, rng)
  instruction = pool.prompts.draw_description(route, rng)
  example = _example(route, instruction, pair.case.id, pair.index)
  return slabs.widen(
    example, slabs.slab_around(pair.index, pair.case.usable, pool.slab)
  )


def longest(pool: Pool) -> Iterator[Example]:
  """Examples with every route and description that `build` may draw.

  They refer to no slices: their lengths are those of the pool's examples.
  """
  for route in pool.drawn_routes():
    for instruction in pool.prompts.describe(route):
      example = _example(route, instruction, '', 0)
      yield slabs.widen(example, range(pool.slab))


def prompt(
  route: Route,
  case: str,
  index: int,
  prompts: Prompts,
  *,
  instruction: Route | None = None,
) -> Example:
  """The example with the canonical description, for inference.

  Args:
    route: sources -> target.
    case, index: of the slices to start from. The pixels of the target are not
      used.
    prompts: the wordings.
    instruction: the route that the description is of; None = `route`.
  """
  return _example(route, prompts.canonical(instruction or route), case, index)


def build_reconstruction(
  pair: Pair, pool: Pool, rng: np.random.Generator
) -> Example:
  """The target slice alone, for training the autoencoder.

  Args:
    pair: the pair of slices.
    pool, rng: not used.
  """
  del pool, rng
  target = SliceRef(pair.case.id, pair.route.target, pair.index)
  return Example('reconstruction', (vae_image(target, has_loss=True),))


def _example(route: Route, instruction: str, case: str, index: int) -> Example:
  *sources, target = (
    SliceRef(case, modality, index)
    for modality in (*route.sources, route.target)
  )
  spans = (
    *(span(image) for image in sources for span in (vae_image, vit_image)),
    text(instruction),
    vae_image(target, has_loss=True),
  )
  return Example('synthesis', spans, route=route)
