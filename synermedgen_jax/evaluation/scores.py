"""Scores with a name, which commands compute when they are asked for it.

A score has several numbers. `volume_scores` has those of whole volumes,
`adherence` those of what a synthesis takes from its conditions; `ALL_SCORES` of
`named_scores` has both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from synermedgen_jax.core.modalities import Route


@dataclasses.dataclass(frozen=True)
class Number:
  """How a metric is printed.

  Attributes:
    label: name.
    decimals: number of decimals.
    unit: physical unit; '' = none.
  """

  label: str
  decimals: int
  unit: str = ''

  def text(self, value: float) -> str:
    """Label, value and unit."""
    return f'{self.label} {value:.{self.decimals}f} {self.unit}'.rstrip()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score:
  """A score of the syntheses of a route.

  Attributes:
    title: name in printed lines.
    numbers: metric -> how it is printed.
    definition: property -> text.
  """

  title: str
  numbers: Mapping[str, Number]
  definition: Mapping[str, str]

  def applies(self, route: Route) -> bool:
    """Whether syntheses of a route have this score."""
    del route
    return True

  def texts(self, values: Mapping[str, float]) -> list[str]:
    """The values as printed, in the order of `numbers`; some may lack."""
    return [
      number.text(values[metric])
      for metric, number in self.numbers.items()
      if metric in values
    ]


def key_of(score: str, metric: str) -> str:
  """Key of a number where those of several scores stand side by side."""
  return f'{score}/{metric}'
