"""Synthesis and reconstruction: the examples that end with a noised image."""

from __future__ import annotations

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
    pool: the wordings, and the size of the slab around the pair.
    rng: draws the description.
  """
  example = _example(
    pair.route,
    pool.prompts.draw_description(pair.route, rng),
    SliceRef(pair.case.id, pair.route.source, pair.index),
    SliceRef(pair.case.id, pair.route.target, pair.index),
  )
  return slabs.widen(
    example, slabs.slab_around(pair.index, pair.case.usable, pool.slab)
  )


def prompt(
  route: Route, source: SliceRef, target: SliceRef, prompts: Prompts
) -> Example:
  """The example with the canonical description, for inference.

  Args:
    route: source -> target.
    source: the slice to start from.
    target: reference to the slice to synthesise; its pixels are not read.
    prompts: the wordings.
  """
  return _example(route, prompts.canonical(route), source, target)


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


def _example(
  route: Route, instruction: str, source: SliceRef, target: SliceRef
) -> Example:
  spans = (
    vae_image(source),
    vit_image(source),
    text(instruction),
    vae_image(target, has_loss=True),
  )
  return Example('synthesis', spans, route=route)
