"""Synthesis: the source slice and an instruction, then the noised target."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from synermedgen_jax.core.modalities import Route
from synermedgen_jax.tasks import prompts
from synermedgen_jax.tasks.example import (
  Example,
  SliceRef,
  text,
  vae_image,
  vit_image,
)

if TYPE_CHECKING:
  from synermedgen_jax.slices.store import Case


def build(
  case: Case, route: Route, index: int, rng: np.random.Generator
) -> Example:
  """Source slice, one of the route's wordings -> target slice.

  Args:
    case: the pair's case.
    route: source -> target.
    index: the slice of the pair.
    rng: draws the wording.
  """
  return _example(
    route,
    str(rng.choice(prompts.descriptions(route))),
    SliceRef(case.id, route.source, index),
    SliceRef(case.id, route.target, index),
  )


def prompt(route: Route, source: SliceRef, target: SliceRef) -> Example:
  """The same with the canonical wording, for inference.

  Args:
    route: source -> target.
    source: the slice to start from.
    target: names the slice to synthesise; its pixels are only noised over.
  """
  return _example(route, prompts.canonical_description(route), source, target)


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
