"""MI, modality identification: the model names the modality of four panels."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from synermedgen_jax.core.modalities import Modality, confusable_groups
from synermedgen_jax.tasks import prompts
from synermedgen_jax.tasks.example import (
  Example,
  SliceRef,
  label,
  text,
  vit_image,
)
from synermedgen_jax.tasks.pairs import Pair, Pool
from synermedgen_jax.tasks.prompts import LETTERS, Prompts

if TYPE_CHECKING:
  from synermedgen_jax.slices.store import Case

  Panel = tuple[Case, Modality, int]


def build(pair: Pair, pool: Pool, rng: np.random.Generator) -> Example:
  """Question, lettered panels -> 'A CT B PET C T1CE (MRI) D MRI'.

  Args:
    pair: not used; the panels come from the whole pool.
    pool: its cases and wordings.
    rng: draws the panels, their order and the question.
  """
  del pair
  panels = [
    SliceRef(case.id, modality, index)
    for case, modality, index in draw_panels(pool.by_modality, rng)
  ]
  return ask(panels, pool.prompts, rng)


def draw_panels(
  cases_by_modality: Mapping[Modality, Sequence[Case]],
  rng: np.random.Generator,
  *,
  n: int = 4,
  confusable: float = 0.5,
) -> list[Panel]:
  """Draws panels with equal probability of every modality; some may repeat.

  Args:
    cases_by_modality: the cases that have each modality.
    rng: draws modalities, cases and slices.
    n: number of panels, at most one per letter.
    confusable: probability that two panels have modalities of one family. They
      show the same slice of a case that has both, so only contrast differs.
  """
  _check_count(n)
  available = [m for m in Modality if cases_by_modality.get(m)]
  if not available:
    raise ValueError('MI needs at least one case.')
  panels = []
  families = [
    [m for m in available if m in group] for group in confusable_groups()
  ]
  groups = [family for family in families if len(family) > 1]
  if groups and rng.random() < confusable:
    group = groups[rng.integers(len(groups))]
    i, j = rng.choice(len(group), 2, replace=False)
    panels.append(_draw_panel(group[i], cases_by_modality[group[i]], rng))
    case, _, index = panels[0]
    if group[j] in case.modalities:
      panels.append((case, group[j], index))
    else:
      panels.append(_draw_panel(group[j], cases_by_modality[group[j]], rng))
  while len(panels) < n:
    modality = available[rng.integers(len(available))]
    panels.append(_draw_panel(modality, cases_by_modality[modality], rng))
  return panels


def _draw_panel(
  modality: Modality, cases: Sequence[Case], rng: np.random.Generator
) -> Panel:
  case = cases[rng.integers(len(cases))]
  if not case.usable:
    raise ValueError(f'Case {case.id!r} has no usable slice.')
  return case, modality, int(rng.integers(case.usable.start, case.usable.stop))


def ask(
  panels: Sequence[SliceRef], wordings: Prompts, rng: np.random.Generator
) -> Example:
  """The example that asks about these panels.

  Args:
    panels: 2 to 4 slices.
    wordings: its questions.
    rng: shuffles the panels over the letters, and draws the question.
  """
  _check_count(len(panels))
  panels = [panels[i] for i in rng.permutation(len(panels))]
  spans = [text(wordings.draw_mi(rng))]
  for letter, panel in zip(LETTERS, panels, strict=False):
    spans.append(vit_image(panel))
    spans.append(label(letter))
  answer = prompts.mi_answer([panel.modality for panel in panels])
  spans.append(text(answer, has_loss=True))
  return Example('mi', tuple(spans), answer)


def _check_count(n: int) -> None:
  most = len(LETTERS)
  if not 2 <= n <= most:
    raise ValueError(f'MI shows 2 to {most} panels, got {n}.')


def parse_answer(answer: str, n: int = 4) -> list[str]:
  """The modality label given for each panel; '' where none can be read.

  'A CT B PET D MRI' -> ['CT', 'PET', '', 'MRI']
  """
  labels = '|'.join(re.escape(modality.label) for modality in Modality)
  given = {}
  for letter, name in re.findall(rf'\b([{LETTERS}]) ({labels})(?!\S)', answer):
    given.setdefault(letter, name)
  return [given.get(letter, '') for letter in LETTERS[:n]]
