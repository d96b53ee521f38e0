"""Ordinary medical VQA about single slices, the control of the ablations.

Questions: is there a lesion, on which side is it, how large is it, which organ
is the largest? A question with an ambiguous answer is left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from synermedgen_jax.phantoms.truth import Finding
from synermedgen_jax.tasks.example import Example, SliceRef, text, vit_image
from synermedgen_jax.tasks.facts import (
  CONTRAST,
  LARGE,
  LESION_MM2,
  NONE_MM2,
  OFF_MIDLINE,
  ONE_SIDE,
  SMALL,
)

QUESTIONS = {
  'lesion': 'Is there a lesion?',
  'side': 'On which side of the patient is the lesion?',
  'organ': 'Which organ is the largest here?',
  'size': 'How large is the lesion?',
}
_NEAR_A_LIMIT = 0.08  # relative distance at which a size is ambiguous
_ORGAN_MM2 = 900.0  # smallest area of the largest organ
_LARGER = 1.5  # smallest ratio of its area to the second largest

# (slice, kind of question, answer)
Asked = tuple[SliceRef, str, str]


def ask(
  finding: Finding, image: Float[np.ndarray, 'h w']
) -> Iterator[tuple[str, str]]:
  """Kinds of `QUESTIONS` with a clear answer in a slice, and their answers.

  Side is that of the patient, not of the image. Size is small, medium or large:
  the diameter of a circle of the lesion's area is up to 26 mm, up to 40 mm or
  more. Diameters within 8 % of a limit have no question, nor has a lesion that
  the image does not show.

  Args:
    finding: lesions and organs in the slice.
    image: the slice in one modality, in [-1, 1].
  """
  has_lesion = finding.lesion_mm2 >= LESION_MM2 and finding.lesions > 0
  if has_lesion and _shown(finding.lesion, image):
    yield 'lesion', 'yes'
    if abs(finding.offset) >= OFF_MIDLINE:
      if finding.right >= ONE_SIDE and finding.offset > 0:
        yield 'side', 'right'
      if finding.right <= 1 - ONE_SIDE and finding.offset < 0:
        yield 'side', 'left'
    size = size_of(finding.lesion_mm2)
    if size and finding.lesions == 1:
      yield 'size', size
  elif finding.lesion_mm2 <= NONE_MM2:
    yield 'lesion', 'no'
  organ = largest(finding)
  if organ:
    yield 'organ', organ


def size_of(area: float) -> str:
  """'small', 'medium' or 'large' for an area in mm2; '' near a limit."""
  diameter = 2 * math.sqrt(area / math.pi)
  for limit in (SMALL, LARGE):
    if abs(diameter - limit) < _NEAR_A_LIMIT * limit:
      return ''
  if diameter < SMALL:
    return 'small'
  return 'medium' if diameter < LARGE else 'large'


def largest(finding: Finding) -> str:
  """The organ with the largest area; '' if it is ambiguous."""
  (first, area), (_, second) = sorted(
    finding.organs.items(), key=lambda item: -item[1]
  )[:2]
  is_clear = area >= _ORGAN_MM2 and area >= _LARGER * second
  return first if is_clear else ''


def _shown(
  lesion: Float[np.ndarray, 'h w'], image: Float[np.ndarray, 'h w']
) -> bool:
  """Whether a lesion differs from a ring of two pixels around it."""
  inside = lesion > 0.5
  ring = ndimage.binary_dilation(lesion > 0.1, iterations=2) & (lesion <= 0.1)
  if not inside.any() or not ring.any():
    return False
  difference = image[inside].mean() - np.median(image[ring])
  return bool(abs(difference) >= CONTRAST)


def build(ref: SliceRef, kind: str, answer: str) -> Example:
  """One slice, a question -> an answer in words.

  Args:
    ref: the slice.
    kind: a key of `QUESTIONS`.
    answer: one that `ask` yields.
  """
  spans = (
    vit_image(ref),
    text(QUESTIONS[kind]),
    text(answer, has_loss=True),
  )
  return Example('vlm', spans, answer)


def balanced(
  asked: Sequence[Asked], count: int, rng: np.random.Generator
) -> list[Asked]:
  """Draws questions, alternating between kinds and between answers of a kind.

  A kind ends once only one of its answers has questions left, so that answers
  are equally frequent.

  Args:
    asked: all questions.
    count: largest number of questions to draw.
    rng: draws the questions of an answer.
  """
  kinds: dict[str, dict[str, list[Asked]]] = {}
  for i in rng.permutation(len(asked)):
    _, kind, answer = asked[i]
    kinds.setdefault(kind, {}).setdefault(answer, []).append(asked[i])
  lines = []
  for kind in sorted(kinds):
    answers = [kinds[kind][answer] for answer in sorted(kinds[kind])]
    turns = range(sorted(map(len, answers))[-2] if len(answers) > 1 else 0)
    lines.append([a[i] for i in turns for a in answers if i < len(a)])
  turns = range(max(map(len, lines), default=0))
  return [line[i] for i in turns for line in lines if i < len(line)][:count]
