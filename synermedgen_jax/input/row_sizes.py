"""Refuses examples that exceed the capacity of a row."""

from __future__ import annotations

import dataclasses

from synermedgen_jax.core.batch import Capacity, ImageGeometry
from synermedgen_jax.core.errors import UserError
from synermedgen_jax.input import packing
from synermedgen_jax.input.tokenizer import Tokenizer
from synermedgen_jax.tasks.pairs import Pool
from synermedgen_jax.tasks.registry import Task


class ExampleTooLarge(UserError):
  """An example that exceeds the capacity of a row; one line naming the key."""


def check_size(task: str, needed: Capacity, capacity: Capacity) -> None:
  """Refuses an example of a task that needs more than a row has.

  Raises:
    ExampleTooLarge: naming the key and both numbers.
  """
  for name, size in dataclasses.asdict(needed).items():
    limit = getattr(capacity, name)
    if size > limit:
      raise ExampleTooLarge(
        f'config.capacity.{name} is {limit}, but an example of task '
        f'{task!r} needs {size}.'
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
  needed = Capacity.largest(
    packing.measure(example, tokenizer, geometry)
    for example in task.longest(pool)
  )
  check_size(task.name, needed, capacity)
