"""Endless datasets of examples about scenes, drawn from a seed."""

from __future__ import annotations

from collections.abc import Callable

import grain.python as grain
import numpy as np

from projects.small_base.scenes.questions import Scenes
from synermedgen_jax.tasks.example import Example, ExampleSource

Draw = Callable[[Scenes, np.random.Generator], Example]

# Seeds of the scenes of each split; no two splits share a scene.
SPLITS = {
  'train': Scenes(0, 2**30),
  'val': Scenes(2**30, 2**29),
  'test': Scenes(2**30 + 2**29, 2**29),
}


class _Build(grain.RandomMapTransform):
  """Maps numbers to examples of one task, drawn from the generator alone."""

  def __init__(self, draw: Draw, scenes: Scenes):
    self._draw = draw
    self._scenes = scenes

  def random_map(self, index: int, rng: np.random.Generator) -> Example:
    del index
    return self._draw(self._scenes, rng)


def source(draw: Draw) -> Callable[[str], ExampleSource]:
  """Returns the `source` of a task (`synermedgen_jax.tasks.registry.Task`).

  Args:
    draw: one of the functions in `questions`.

  Returns:
    split ('train', 'val' or 'test') -> seed -> an endless dataset of examples.
  """

  def of_split(split: str) -> ExampleSource:
    build = _Build(draw, SPLITS[split])
    return lambda seed: (
      grain.MapDataset.range(2**31).seed(seed).random_map(build)
    )

  return of_split
