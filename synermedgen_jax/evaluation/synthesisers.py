"""Models that `evaluate --synthesiser` scores instead of the model of the run.

Their scores take the row `model` of the results; the baselines of `routes` stay
beside them.
"""

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
  """A model that synthesises slices of a route's target from its sources."""

  def synthesise(
    self,
    route: Route,
    sources: Float[np.ndarray, 's z h w'],
    *,
    seed: int = 0,
    progress: Callable[[int], object] | None = None,
  ) -> Slices:
    """Synthesises slices of the target from slices of the sources.

    Args:
      route: sources -> target. `route.source` refuses several sources.
      sources: (s, z, h, w), in the order of `route.sources`; [-1, 1] spans the
        window of each.
      seed: random seed, if the model samples.
      progress: called after each batch with its number of slices.

    Returns:
      Slices (z, h, w); [-1, 1] spans the target's window.
    """


Factory = Callable[[Trained, SliceStore], SynthesisModel]

SYNTHESISERS: dict[str, Factory] = {}


def register_synthesiser(name: str, factory: Factory) -> Factory:
  """Registers a model for `evaluate --synthesiser=NAME`.

  Args:
    name: value of the flag, and name in the results.
    factory: (the evaluated run, its store) -> the model. It may fit the model
      to the training split of the store, and must not read other splits.

  Raises:
    ValueError: the name is registered already.
  """
  if name in SYNTHESISERS:
    raise ValueError(f'Synthesiser {name!r} is registered already.')
  SYNTHESISERS[name] = factory
  return factory
