"""Announces compilations, which take seconds to minutes and print nothing."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from synermedgen_jax.core.progress import duration, say

_announced: set[str] = set()


@contextlib.contextmanager
def compiling(program: str, *, shown: bool = True) -> Iterator[None]:
  """Prints that a program is compiled, at its first call in a process.

    with compiling('the training step'):
      state, sums = train_step(state, batch)

  A jitted function compiles before its first call returns. A later call that
  compiles again, for another shape, prints nothing.

  Args:
    program: noun with article.
    shown: whether to print; False in all processes but one.
  """
  if program in _announced or not shown:
    yield
    return
  _announced.add(program)
  say(f'Compiling {program} ...')
  start = time.monotonic()
  yield
  say(f'Compiled {program} in {duration(time.monotonic() - start)}.')
