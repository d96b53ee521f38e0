"""Scenes as tasks to train on: endless, seeded, made on the fly.

What `input.pipeline.train_dataset(sources=...)` takes, beside a slice store or
without one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import grain.python as grain
import numpy as np

from synermedgen_jax.scenes import questions
from synermedgen_jax.scenes.questions import Scenes
from synermedgen_jax.tasks.example import Example

# A seed -> an endless dataset of one task's examples (`input.pipeline`).
ExampleSource = Callable[[int], grain.MapDataset]

# Seeds of the scenes of each split; no split has one of another's.
SPLITS = {
  'train': Scenes(0, 2**30),
  'val': Scenes(2**30, 2**29),
  'test': Scenes(2**30 + 2**29, 2**29),
}


class _Build(grain.RandomMapTransform):
  """A number -> an Example of one task."""

  def __init__(
    self,
    task: str,
    scenes: Scenes,
    levels: Sequence[float],
    first_levels: Sequence[float],
    first: int,
  ):
    self._task = task
    self._scenes = scenes
    self._levels = levels
    self._first_levels = first_levels
    self._first = first

  def random_map(self, index: int, rng: np.random.Generator) -> Example:
    if self._task == 'view':
      early = index < self._first
      levels = self._first_levels if early else self._levels
      return questions.view(self._scenes, rng, levels)
    return getattr(questions, self._task)(self._scenes, rng)


def sources(config: Mapping, split: str) -> dict[str, ExampleSource]:
  """The tasks about scenes; none where `config` is empty.

  Args:
    config: `levels`, the shares of `questions.LEVELS` in the task `view`;
      `first_levels`, those among its `first_views` examples when training.
      Where it is given, `reconstruction` shows scenes too, not slices.
    split: 'train', 'val' or 'test'.

  Returns:
    Task name -> seed -> an endless dataset of its examples.
  """
  if not config:
    return {}
  first = int(config.get('first_views', 0)) if split == 'train' else 0
  levels = _shares(config, 'levels')
  first_levels = _shares(config, 'first_levels') if first else levels

  def source(task: str) -> ExampleSource:
    build = _Build(task, SPLITS[split], levels, first_levels, first)
    return lambda seed: (
      grain.MapDataset.range(2**31).seed(seed).random_map(build)
    )

  return {t: source(t) for t in (*questions.TASKS, 'reconstruction')}


def _shares(config: Mapping, key: str) -> tuple[float, ...]:
  shares = tuple(config[key])
  if len(shares) != len(questions.LEVELS) or sum(shares) <= 0:
    raise ValueError(
      f'config.scenes.{key} {shares}: expected a share for each of '
      f'{", ".join(questions.LEVELS)}.'
    )
  return shares
