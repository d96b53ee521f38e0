"""The models that `evaluate` can score instead of the run's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from jaxtyping import Float

from synermedgen_jax.core.modalities import Route
from synermedgen_jax.inference.workdir import Trained
from synermedgen_jax.slices.store import SliceStore

Slices = Float[np.ndarray, 'z h w']


class SynthesisModel(Protocol):
  """Anything that turns slices of a route's source into its target."""

  def synthesise(
    self,
    route: Route,
    slices: Slices,
    *,
    seed: int = 0,
    progress: Callable[[int], object] | None = None,
  ) -> Slices:
    """Slices of the target from slices of the source.

    Args:
      route: source -> target.
      slices: (z, h, w), in [-1, 1], which spans the source's window.
      seed: of the noise, if the model draws any.
      progress: called with the number of slices just finished.

    Returns:
      (z, h, w) in [-1, 1], which spans the target's window.
    """


Factory = Callable[[Trained, SliceStore], SynthesisModel]

SYNTHESISERS: dict[str, Factory] = {}


def register_synthesiser(name: str, factory: Factory) -> Factory:
  """Adds a model for `evaluate --synthesiser=NAME`.

  Args:
    name: on the flag, and in the results.
    factory: (the run that is evaluated, its store) -> the model. The store's
      training subjects may be read, to fit the model; no others.

  Raises:
    ValueError: the name is taken.
  """
  if name in SYNTHESISERS:
    raise ValueError(f'Synthesiser {name!r} is registered already.')
  SYNTHESISERS[name] = factory
  return factory
