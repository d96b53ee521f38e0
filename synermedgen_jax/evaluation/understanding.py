"""Accuracy of the three understanding tasks, beside chance."""

from __future__ import annotations

import collections
import re
from collections.abc import Iterable, Mapping
from typing import Any

from synermedgen_jax.core.modalities import Modality
from synermedgen_jax.evaluation.routes import align
from synermedgen_jax.tasks.mi import parse_answer
from synermedgen_jax.tasks.prompts import LETTERS

TASKS = ('cts', 'mi', 'tia')
UNREAD = 'unread'
_LETTER = re.compile(rf'\s*([{LETTERS}])\b')

DEFINITION = {
  'cts': {
    'accuracy': 'share of questions whose answer begins with the right letter',
    'chance': '1 in 4',
  },
  'mi': {
    'accuracy': 'share of panels given the right modality',
    'exact': 'share of questions with all panels right',
    'chance': 'share of the most frequent modality among the panels asked',
  },
  'tia': {
    'accuracy': 'share of questions whose answer begins with the right letter',
    'chance': '1 in 4',
  },
}

Record = Mapping[str, str]


def is_correct(record: Record) -> bool:
  """Whether the answer is right; for MI, whether all its panels are.

  Args:
    record: {task, answer, prediction}.
  """
  if record['task'] == 'mi':
    return all(truth == said for truth, said in panels_said(record))
  right = letter_said(record['answer'])
  if right is None:
    raise ValueError(
      f'No letter in the {record["task"].upper()} answer {record["answer"]!r}.'
    )
  return letter_said(record['prediction']) == right


def score(records: Iterable[Record]) -> dict[str, Any]:
  """Accuracy of every task asked.

  Args:
    records: one {task, answer, prediction} per question.

  Returns:
    {'understanding': {task: {accuracy, chance, count}}}, as `DEFINITION`
    says; `count` is questions, but panels for MI, which has `exact`,
    `questions` and `confusion` too. A task that was not asked is left out.
  """
  by_task = collections.defaultdict(list)
  for record in records:
    if record['task'] not in TASKS:
      raise ValueError(
        f'Unknown task {record["task"]!r}: expected one of {TASKS}.'
      )
    by_task[record['task']].append(record)
  return {
    'understanding': {
      task: _score_mi(by_task[task])
      if task == 'mi'
      else _score_letters(by_task[task])
      for task in TASKS
      if by_task[task]
    }
  }


def _score_letters(records: list[Record]) -> dict[str, Any]:
  right = sum(map(is_correct, records))
  return {
    'accuracy': right / len(records),
    'chance': 1 / len(LETTERS),
    'count': len(records),
  }


def _score_mi(records: list[Record]) -> dict[str, Any]:
  panels = [panel for record in records for panel in panels_said(record)]
  frequencies = collections.Counter(truth for truth, _ in panels)
  return {
    'accuracy': sum(truth == said for truth, said in panels) / len(panels),
    'chance': max(frequencies.values()) / len(panels),
    'count': len(panels),
    'exact': sum(map(is_correct, records)) / len(records),
    'questions': len(records),
    'confusion': confusion(records),
  }


def confusion(records: Iterable[Record]) -> dict[str, Any]:
  """What the panels of MI were taken for.

  Returns:
    {'truth': labels asked, 'said': labels said or asked, `UNREAD` last,
    'counts': one row per truth, one column per said}.
  """
  panels = collections.Counter(
    panel
    for record in records
    if record['task'] == 'mi'
    for panel in panels_said(record)
  )
  asked = {truth for truth, _ in panels}
  said = asked | {answer for _, answer in panels}
  rows = [m.label for m in Modality if m.label in asked]
  columns = [m.label for m in Modality if m.label in said]
  return {
    'truth': rows,
    'said': [*columns, UNREAD],
    'counts': [
      [panels[row, column] for column in [*columns, '']] for row in rows
    ],
  }


def panels_said(record: Record) -> list[tuple[str, str]]:
  """(truth, said) of every panel of MI; said is '' where it cannot be read."""
  truth = parse_answer(record['answer'], len(LETTERS))
  said = parse_answer(record['prediction'], len(LETTERS))
  panels = [(t, s) for t, s in zip(truth, said, strict=True) if t]
  if not panels:
    raise ValueError(f'No panel in the MI answer {record["answer"]!r}.')
  return panels


def letter_said(answer: str) -> str | None:
  """The letter that an answer begins with; None where there is none."""
  match = _LETTER.match(answer)
  return match.group(1) if match else None


def understanding_table(metrics: Mapping[str, Any]) -> str:
  """The tasks of a score as aligned text."""
  rows = [('task', 'accuracy', 'chance', 'count', '')]
  for task, values in metrics['understanding'].items():
    exact = f'all panels {values["exact"]:.3f}' if 'exact' in values else ''
    rows.append(
      (
        task.upper(),
        f'{values["accuracy"]:.3f}',
        f'{values["chance"]:.3f}',
        str(values['count']),
        exact,
      )
    )
  return align(rows)
