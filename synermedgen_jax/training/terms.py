"""What a step tells of itself: one array, which a device hands over at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import flax.struct
import jax.numpy as jnp
from jaxtyping import Float

from synermedgen_jax.core.batch import Array


@flax.struct.dataclass
class Terms(Mapping):
  """{term: (sum, count)}; sixty small arrays would take a millisecond to read.

  Attributes:
    numbers: the sums and counts.
    names: of the terms.
  """

  numbers: Float[Array, 'terms 2']
  names: tuple[str, ...] = flax.struct.field(pytree_node=False)

  @classmethod
  def of(cls, terms: Mapping[str, tuple]) -> Terms:
    """Gathers scalars."""
    names = tuple(sorted(terms))
    pairs = [jnp.stack(terms[name]) for name in names]
    return cls(jnp.stack(pairs).astype(jnp.float32), names)

  def __getitem__(self, name: str) -> tuple:
    if name not in self.names:
      raise KeyError(name)
    return tuple(self.numbers[self.names.index(name)])

  def __iter__(self) -> Iterator[str]:
    return iter(self.names)

  def __len__(self) -> int:
    return len(self.names)
