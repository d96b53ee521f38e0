"""Ordinary medical VQA: what is asked of one slice, without any pair.

The control of the ablations: is there a lesion, which side, which organ, how
large. A question is asked where its answer is plain; what is in between is
passed over.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from synermedgen_jax.phantoms.truth import Finding
from synermedgen_jax.tasks.example import Example, SliceRef, text, vit_image

QUESTIONS = {
  'lesion': 'Is there a lesion?',
  'side': 'On which side of the patient is the lesion?',
  'organ': 'Which organ is the largest here?',
  'size': 'How large is the lesion?',
}
_LESION_MM2 = 120.0  # from here on, there is a lesion
_NONE_MM2 = 2.0  # up to here, there is none
_ONE_SIDE = 0.9  # of the lesion's area
_OFF_MIDLINE = 12.0  # mm
# Limits of the diameter of the circle of the same area, in mm.
_SMALL, _LARGE = 26.0, 40.0
_NEAR_A_LIMIT = 0.08
_ORGAN_MM2 = 900.0
_LARGER = 1.5  # than the next organ
_CONTRAST = 0.12  # of [-1, 1], between a lesion and what is around it

# A slice, the kind of question, the answer.
Asked = tuple[SliceRef, str, str]


def ask(
  finding: Finding, image: Float[np.ndarray, 'h w']
) -> Iterator[tuple[str, str]]:
  """The kinds of `QUESTIONS` that fit a slice, each with its answer.

  Side is the patient's, not the picture's. Size is small, medium or large: the
  diameter of a circle of the lesion's area is up to 26 mm, up to 40 mm or
  more, 8 % around a limit left out. A lesion that this modality does not show
  is not asked about.

  Args:
    finding: what is in the slice.
    image: how a modality shows it, in [-1, 1].
  """
  there = finding.lesion_mm2 >= _LESION_MM2 and finding.lesions > 0
  if there and _shown(finding.lesion, image):
    yield 'lesion', 'yes'
    if abs(finding.offset) >= _OFF_MIDLINE:
      if finding.right >= _ONE_SIDE and finding.offset > 0:
        yield 'side', 'right'
      if finding.right <= 1 - _ONE_SIDE and finding.offset < 0:
        yield 'side', 'left'
    size = size_of(finding.lesion_mm2)
    if size and finding.lesions == 1:
      yield 'size', size
  elif finding.lesion_mm2 <= _NONE_MM2:
    yield 'lesion', 'no'
  organ = largest(finding)
  if organ:
    yield 'organ', organ


def size_of(area: float) -> str:
  """'small', 'medium' or 'large' of an area in mm2; '' near a limit."""
  diameter = 2 * math.sqrt(area / math.pi)
  for limit in (_SMALL, _LARGE):
    if abs(diameter - limit) < _NEAR_A_LIMIT * limit:
      return ''
  if diameter < _SMALL:
    return 'small'
  return 'medium' if diameter < _LARGE else 'large'


def largest(finding: Finding) -> str:
  """The organ of the largest area; '' where it is not plain."""
  (first, area), (_, second) = sorted(
    finding.organs.items(), key=lambda item: -item[1]
  )[:2]
  plain = area >= _ORGAN_MM2 and area >= _LARGER * second
  return first if plain else ''


def _shown(
  lesion: Float[np.ndarray, 'h w'], image: Float[np.ndarray, 'h w']
) -> bool:
  """Whether a lesion differs from the ring of two pixels around it."""
  inside = lesion > 0.5
  ring = ndimage.binary_dilation(lesion > 0.1, iterations=2) & (lesion <= 0.1)
  if not inside.any() or not ring.any():
    return False
  difference = image[inside].mean() - np.median(image[ring])
  return bool(abs(difference) >= _CONTRAST)


def build(ref: SliceRef, kind: str, answer: str) -> Example:
  """One slice, a question -> an answer in words.

  Args:
    ref: the slice.
    kind: of `QUESTIONS`.
    answer: as `ask` gives it.
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
  """Draws questions, kinds in turn and the answers of a kind in turn.

  A kind goes on until one of its answers alone is left, so of two answers
  both are drawn equally often.

  Args:
    asked: all there are.
    count: how many, at most.
    rng: draws.
  """
  kinds: dict[str, dict[str, list[Asked]]] = {}
  for i in rng.permutation(len(asked)):
    _, kind, answer = asked[i]
    kinds.setdefault(kind, {}).setdefault(answer, []).append(asked[i])
  lines = []
  for kind in sorted(kinds):
    answers = [kinds[kind][answer] for answer in sorted(kinds[kind])]
    # Up to where one answer alone is left.
    turns = range(sorted(map(len, answers))[-2] if len(answers) > 1 else 0)
    lines.append([a[i] for i in turns for a in answers if i < len(a)])
  turns = range(max(map(len, lines), default=0))
  return [line[i] for i in turns for line in lines if i < len(line)][:count]
