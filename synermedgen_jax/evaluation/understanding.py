"""Accuracy of the understanding tasks, and the accuracy of guessing."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from synermedgen_jax.evaluation.routes import align
from synermedgen_jax.tasks.registry import asked_tasks, task_named
from synermedgen_jax.tasks.scoring import Scoring

UNREAD = 'unread'

Record = Mapping[str, str]
Part = tuple[str, str]  # right answer, answer of the model


def parts_of(record: Record) -> list[Part]:
  """(right, given) for every part of an answer; given is '' if unreadable.

  Args:
    record: {task, answer, prediction}.
  """
  scoring = task_named(record['task']).scoring
  try:
    return scoring.parts(record['answer'], record['prediction'])
  except ValueError as error:
    raise ValueError(f'{record["task"].upper()}: {error}') from None


def is_correct(record: Record) -> bool:
  """Whether every part of the answer is right.

  Args:
    record: {task, answer, prediction}.
  """
  return all(right == given for right, given in parts_of(record))


def score(records: Iterable[Record]) -> dict[str, Any]:
  """Accuracy of every task asked.

  Args:
    records: one {task, answer, prediction} per question.

  Returns:
    {'understanding': {task: {accuracy, chance, count}}}, in the order in which
    tasks are registered. `definitions` defines the numbers; `count` is the
    number of answers or parts scored. A task whose questions have several
    parts also has `exact` and `questions`; one with labels has `confusion`; one
    whose parts are facts has `facts`, {fact: {accuracy, chance, count}}.

  Raises:
    ValueError: `evaluate` does not ask questions of a task in the records.
  """
  by_task = collections.defaultdict(list)
  known = [task.name for task in asked_tasks()]
  for record in records:
    if record['task'] not in known:
      raise ValueError(
        f'Unknown task {record["task"]!r}: expected one of {", ".join(known)}.'
      )
    by_task[record['task']].append(parts_of(record))
  return {
    'understanding': {
      task.name: score_questions(task.scoring, by_task[task.name])
      for task in asked_tasks()
      if by_task[task.name]
    }
  }


def score_questions(
  scoring: Scoring, questions: Sequence[Sequence[Part]]
) -> dict[str, Any]:
  """Scores of the questions of one task.

  Args:
    scoring: how the task is scored.
    questions: (right, given) of every part of every question.

  Returns:
    {accuracy, chance, count, ...} as in `score`.
  """
  parts = [part for question in questions for part in question]
  score: dict[str, Any] = _accuracy(scoring, parts)
  if len(parts) > len(questions):
    exact = sum(all(r == g for r, g in question) for question in questions)
    score |= {'exact': exact / len(questions), 'questions': len(questions)}
  if scoring.labels:
    score['confusion'] = _confusion(parts, scoring.labels())
  if scoring.fact:
    by_fact = collections.defaultdict(list)
    for right, given in parts:
      by_fact[scoring.fact(right)].append((right, given))
    score['facts'] = {
      fact: _accuracy(scoring, of_fact) for fact, of_fact in by_fact.items()
    }
  return score


def _accuracy(scoring: Scoring, parts: Sequence[Part]) -> dict[str, Any]:
  return {
    'accuracy': sum(right == given for right, given in parts) / len(parts),
    'chance': scoring.chance([right for right, _ in parts]),
    'count': len(parts),
  }


def _confusion(parts: Sequence[Part], labels: Sequence[str]) -> dict[str, Any]:
  """Counts pairs of a right and a given answer.

  Returns:
    {'truth': the right labels, 'given': the right or given labels and then
    `UNREAD`, 'counts': one row per label of `truth`, one column per `given`}.
  """
  counts = collections.Counter(parts)
  asked = {right for right, _ in counts}
  given = asked | {given for _, given in counts}
  rows = [label for label in labels if label in asked]
  columns = [label for label in labels if label in given]
  return {
    'truth': rows,
    'given': [*columns, UNREAD],
    'counts': [
      [counts[row, column] for column in [*columns, '']] for row in rows
    ],
  }


def definitions(tasks: Iterable[str]) -> dict[str, dict[str, str]]:
  """Definitions of the given tasks and of their numbers."""
  rows = map(task_named, tasks)
  return {
    task.name: {'task': task.definition, **task.scoring.definition}
    for task in rows
  }


def understanding_table(metrics: Mapping[str, Any]) -> str:
  """Formats the scores of all tasks, and of their facts, as aligned text."""
  rows = [('task', 'accuracy', 'chance', 'count', '')]
  for task, values in metrics['understanding'].items():
    exact = ''
    if 'exact' in values:
      unit = task_named(task).scoring.unit
      exact = f'all {unit} {values["exact"]:.3f}'
    rows.append(_row(task.upper(), values, exact))
    rows += [_row(f'  {n}', v) for n, v in values.get('facts', {}).items()]
  return align(rows)


def _row(
  name: str, values: Mapping[str, Any], note: str = ''
) -> tuple[str, str, str, str, str]:
  accuracy, chance = (f'{values[key]:.3f}' for key in ('accuracy', 'chance'))
  return name, accuracy, chance, str(values['count']), note
