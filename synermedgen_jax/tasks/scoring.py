"""Reading and scoring of answers.

An answer has parts: one for a question with a letter, one per panel for MI, one
per fact for a description. A part is right if it equals that of the right
answer.
"""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence

from synermedgen_jax.core.modalities import Modality
from synermedgen_jax.tasks import facts, mi
from synermedgen_jax.tasks.prompts import LETTERS

_LETTER = re.compile(rf'\s*([{LETTERS}])\b')
_LETTERS = re.compile(rf'\b([{LETTERS}])\b')


@dataclasses.dataclass(frozen=True)
class Scoring:
  """Scoring of the answers to a task.

  Attributes:
    read: text of an answer -> its parts, a fixed number; '' for a part that
      cannot be read.
    chance: the expected accuracy of guessing, from the right parts of all
      questions.
    definition: definitions of `accuracy` and `chance`, in words.
    unit: plural noun for the parts that `accuracy` counts.
    per_image: the parts belong to the images of the question, in order;
      otherwise the answer is about the subject of the first image.
    labels: all values of a part, in the order of a confusion table; None = no
      such table.
    fact: part of a right answer -> name of the fact that it states. `evaluate`
      reports accuracy and chance of each fact. None = parts have no names.
  """

  read: Callable[[str], Sequence[str]]
  chance: Callable[[Sequence[str]], float]
  definition: Mapping[str, str]
  unit: str = 'questions'
  per_image: bool = False
  labels: Callable[[], Sequence[str]] | None = None
  fact: Callable[[str], str] | None = None

  def parts(self, answer: str, prediction: str) -> list[tuple[str, str]]:
    """(right, given) of every part; given is '' if it cannot be read.

    Args:
      answer: the right one.
      prediction: the model's.

    Raises:
      ValueError: no part of the right answer can be read.
    """
    right, given = self.read(answer), self.read(prediction)
    parts = [(r, g) for r, g in zip(right, given, strict=True) if r]
    if not parts:
      raise ValueError(f'The right answer {answer!r} cannot be read.')
    return parts


def read_letter(answer: str) -> tuple[str]:
  """The letter that an answer begins with; '' where there is none."""
  match = _LETTER.match(answer)
  return (match.group(1) if match else '',)


def letters_in(answer: str) -> list[str]:
  """The capital letters of options that stand alone, as in 'Option B'.

  An answer that is one letter counts in lower case, too.
  """
  bare = answer.strip().upper()
  return [bare] if bare in set(LETTERS) else _LETTERS.findall(answer)


def read_last_letter(answer: str) -> tuple[str]:
  """The last of `letters_in`; '' where there is none."""
  return (*letters_in(answer)[-1:], '')[:1]


def read_words(answer: str) -> tuple[str]:
  """The whole answer, without the spaces around it."""
  return (answer.strip(),)


def one_in(count: int) -> Callable[[Sequence[str]], float]:
  """Chance where every question has `count` equally likely answers."""
  return lambda right: 1 / count


def most_frequent(right: Sequence[str]) -> float:
  """The share of the most frequent right part: always giving that one."""
  return max(collections.Counter(right).values()) / len(right)


def most_frequent_of_each(
  fact: Callable[[str], str],
) -> Callable[[Sequence[str]], float]:
  """Chance of always giving the most frequent value of each fact."""

  def chance(right: Sequence[str]) -> float:
    by_fact = collections.defaultdict(list)
    for part in right:
      by_fact[fact(part)].append(part)
    hits = (most_frequent(parts) * len(parts) for parts in by_fact.values())
    return sum(hits) / len(right)

  return chance


LETTER = Scoring(
  read_letter,
  one_in(len(LETTERS)),
  {
    'accuracy': 'share of questions whose answer begins with the right letter',
    'chance': f'1 in {len(LETTERS)}',
  },
)
PANELS = Scoring(
  mi.parse_answer,
  most_frequent,
  {
    'accuracy': 'share of panels given the right modality',
    'exact': 'share of questions with all panels right',
    'chance': 'share of the most frequent modality among the panels asked',
  },
  unit='panels',
  per_image=True,
  labels=lambda: [modality.label for modality in Modality],
)
CHOICE = Scoring(
  read_last_letter,
  one_in(len(LETTERS)),
  {
    'accuracy': 'share of questions whose answer gives the right letter: the '
    f'last of {", ".join(LETTERS)} that stands alone as a capital, or an '
    'answer of one letter in either case',
    'chance': f'1 in {len(LETTERS)}',
  },
  labels=lambda: LETTERS,
)
WORDS = Scoring(
  read_words,
  most_frequent,
  {
    'accuracy': 'share of questions answered with the right words',
    'chance': 'share of the most frequent answer among those asked',
  },
)
FACTS = Scoring(
  facts.read,
  most_frequent_of_each(facts.fact_of),
  {
    'accuracy': 'share of the facts of the right descriptions that the '
    "model's state: modality, region, plane, level, and lesion, side and size "
    'where the mask decides them; a fact that is missing, or stated with two '
    'values, is wrong, and facts that the right description leaves out do not '
    'count',
    'exact': 'share of descriptions with all facts right',
    'chance': 'share of the most frequent value of each fact among those asked',
    'facts': 'the same for each fact',
  },
  unit='facts',
  fact=facts.fact_of,
)
