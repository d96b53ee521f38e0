"""Titles and texts of a comparison page, read from a JSON file.

  {
    "title": "Ablations",
    "about": "What was compared, on which data.",
    "reference": "stage2",
    "published": "Where the published figures come from.",
    "arms": {
      "stage1": {"title": "Stage I alone", "published": {"cts": 83.2}},
      "stage2": {"title": "Stage I + II"}
    }
  }

The keys of `arms` are names of workdirs, ROOT/SEED/ARM. The keys of
published figures are names of lines (`evaluation.lines`), which state the unit.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from synermedgen_jax.core.errors import UserError
from synermedgen_jax.evaluation.lines import comparison_lines


class StudyError(UserError):
  """A study file is missing or malformed; one line that names it."""


@dataclasses.dataclass(frozen=True)
class Arm:
  """A training variant.

  Attributes:
    title: name in tables and plots.
    published: line -> published figure, in the unit of the line.
  """

  title: str
  published: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Study:
  """Texts of a comparison page.

  Attributes:
    title: heading of the page.
    about: first paragraph.
    reference: the arm that differences are taken from; '' = none.
    published: source of the published figures.
    arms: name -> arm, in the order of the table.
  """

  title: str = 'Comparison'
  about: str = ''
  reference: str = ''
  published: str = ''
  arms: Mapping[str, Arm] = dataclasses.field(default_factory=dict)

  def arm(self, name: str) -> Arm:
    """The arm of this name; an unknown arm gets its name as title."""
    return self.arms.get(name, Arm(name))

  @property
  def has_published(self) -> bool:
    return any(arm.published for arm in self.arms.values())


def read_study(path: Path) -> Study:
  """Reads a study.

  Raises:
    StudyError: the file cannot be read, or has an unknown key or line.
  """
  try:
    fields = json.loads(path.read_text('utf-8'))
    arms = {name: Arm(**arm) for name, arm in fields.pop('arms', {}).items()}
    study = Study(**fields, arms=arms)
  except (OSError, ValueError, TypeError, AttributeError) as error:
    raise StudyError(f'{path}: is not a study: {error}') from None
  if study.reference and study.reference not in arms:
    raise StudyError(
      f'{path}: reference {study.reference!r} is not one of the arms.'
    )
  known = {line.name for line in comparison_lines()}
  for name, arm in arms.items():
    if unknown := sorted(set(arm.published) - known):
      raise StudyError(
        f'{path}: arm {name!r} has figures for unknown {", ".join(unknown)}; '
        f'expected some of {", ".join(sorted(known))}.'
      )
  return study
