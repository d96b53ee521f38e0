"""Refuses examples that exceed the capacity of a row."""

from __future__ import annotations

import dataclasses

from synermedgen_jax.core.batch import Capacity, ImageGeometry
from synermedgen_jax.core.errors import UserError
from synermedgen_jax.input import packing
from synermedgen_jax.input.tokenizer import Tokenizer
from synermedgen_jax.tasks.example import Example
from synermedgen_jax.tasks.pairs import Pool
from synermedgen_jax.tasks.registry import Task


class ExampleTooLarge(UserError):
  """An example that exceeds the capacity of a row; one line naming the key."""


def check_size(example: Example, needed: Capacity, capacity: Capacity) -> None:
  """Refuses an example that needs more than a row has.

  Raises:
    ExampleTooLarge: naming the key and both numbers.
  """
  for name, size in dataclasses.asdict(needed).items():
    limit = getattr(capacity, name)
    if size > limit:
      raise ExampleTooLarge(
        f'config.capacity.{name} is {limit}, but an example of task '
        f'{example.task!r} needs {size}.'
      )


def check_longest(
  task: Task,
  pool: Pool,
  tokenizer: Tokenizer,
  geometry: ImageGeometry,
  capacity: Capacity,
) -> None:
  """Refuses a capacity that cannot hold every example of `Task.longest`.

  Raises:
    ExampleTooLarge: as of `check_size`.
  """
  for example in task.longest(pool):
    check_size(example, packing.measure(example, tokenizer, geometry), capacity)
