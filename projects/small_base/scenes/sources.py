"""Scenes as tasks to train on: endless, seeded, made on the fly.

What `input.pipeline.train_dataset(sources=...)` takes, beside a slice store or
without one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grain.python as grain
import numpy as np

from projects.small_base.scenes import questions
from projects.small_base.scenes.questions import Scenes
from synermedgen_jax.tasks.example import Example, ExampleSource

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
    options: Mapping[str, Any],
  ):
    self._draw = getattr(questions, task)
    self._scenes = scenes
    self._options = options

  def random_map(self, index: int, rng: np.random.Generator) -> Example:
    del index
    return self._draw(self._scenes, rng, **self._options)


def sources(config: Mapping, split: str) -> dict[str, ExampleSource]:
  """The tasks about scenes; none where `config` is empty.

  Args:
    config: `levels`, the shares of `questions.LEVELS` in the task `view`, and
      `telling`, as `questions.redraw` has it (0 where it is left out). Where
      it is given, `reconstruction` shows scenes too, not slices.
    split: 'train', 'val' or 'test'.

  Returns:
    Task name -> seed -> an endless dataset of its examples.
  """
  if not config:
    return {}
  levels = tuple(config['levels'])
  if len(levels) != len(questions.LEVELS) or sum(levels) <= 0:
    raise ValueError(
      f'config.scenes.levels {levels}: expected a share for each of '
      f'{", ".join(questions.LEVELS)}.'
    )
  telling = config.get('telling', 0.0)
  if not 0 <= telling <= 1:
    raise ValueError(
      f'config.scenes.telling {telling}: expected a share, from 0 to 1.'
    )

  options = {'view': {'shares': levels}, 'redraw': {'telling': telling}}

  def source(task: str) -> ExampleSource:
    build = _Build(task, SPLITS[split], options.get(task, {}))
    return lambda seed: (
      grain.MapDataset.range(2**31).seed(seed).random_map(build)
    )

  return {t: source(t) for t in (*questions.TASKS, 'reconstruction')}
