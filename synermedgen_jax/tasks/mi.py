"""MI, modality identification: what is each of four panels?"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from synermedgen_jax.core.modalities import CONFUSABLE, Modality
from synermedgen_jax.tasks import prompts
from synermedgen_jax.tasks.example import Example, SliceRef, text, vit_image

if TYPE_CHECKING:
  from synermedgen_jax.slices.store import Case

  Panel = tuple[Case, Modality, int]

_LABELS = '|'.join(re.escape(modality.label) for modality in Modality)
_PANEL = re.compile(rf'\b([{prompts.LETTERS}]) ({_LABELS})(?!\S)')


def draw_panels(
  cases_by_modality: Mapping[Modality, Sequence[Case]],
  rng: np.random.Generator,
  *,
  n: int = 4,
  confusable: float = 0.5,
) -> list[Panel]:
  """Draws panels, every modality as likely as another; some may repeat.

  Args:
    cases_by_modality: the cases that hold a modality.
    rng: draws modalities, cases and slices.
    n: how many panels, at most one per letter.
    confusable: how often two of them are a pair that readers mix up; of one
      case and slice where it holds both, so that only the contrast differs.
  """
  _check_count(n)
  available = [m for m in Modality if cases_by_modality.get(m)]
  if not available:
    raise ValueError('MI needs at least one case.')
  panels = []
  groups = [[m for m in available if m in group] for group in CONFUSABLE]
  groups = [group for group in groups if len(group) > 1]
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


def build(panels: Sequence[Panel], rng: np.random.Generator) -> Example:
  """Question, lettered panels -> 'A CT B PET C T1CE (MRI) D MRI'.

  Args:
    panels: as `draw_panels` returns them.
    rng: shuffles them over the letters.
  """
  _check_count(len(panels))
  panels = [panels[i] for i in rng.permutation(len(panels))]
  spans = [text(prompts.MI_QUESTION)]
  for letter, (case, modality, index) in zip(
    prompts.LETTERS, panels, strict=False
  ):
    spans.append(vit_image(SliceRef(case.id, modality, index)))
    spans.append(text(letter))
  answer = prompts.mi_answer([modality for _, modality, _ in panels])
  spans.append(text(answer, has_loss=True))
  return Example('mi', tuple(spans), answer)


def _check_count(n: int) -> None:
  most = len(prompts.LETTERS)
  if not 2 <= n <= most:
    raise ValueError(f'MI shows 2 to {most} panels, got {n}.')


def parse_answer(answer: str, n: int = 4) -> list[str]:
  """The modality label said of each panel; '' where none can be read.

  'A CT B PET D MRI' -> ['CT', 'PET', '', 'MRI']
  """
  said = {}
  for letter, label in _PANEL.findall(answer):
    said.setdefault(letter, label)
  return [said.get(letter, '') for letter in prompts.LETTERS[:n]]
