"""The results of `evaluate` subject by subject: subjects.json.

metrics.json has the means; intervals over subjects need the single values.
The file is plain JSON:

  {"version": 1,
   "settings": {"split", "slices", "questions", "seed", "neighbours"},
   "subjects": {"brain.brain_003": "brain", …}: subject -> dataset,
   "synthesis": {route: {subject: {"ssim", "psnr", "mae",
     "baselines": {"copy_source": {"ssim", …}, "mean_target": …, "ceiling": …}
   }}}: within the body mask, the mean over a subject's cases,
   "understanding": {task: {"chance": 0.25, "answers": [
     {"question": 0, "subject": "brain.brain_003", "route": "brain_mr_to_ct",
      "right": 1, "asked": 1}, …]}}}

A question with a letter is about one subject and has one answer. The panels of
MI may show several subjects: one entry for each, with `right` of its `asked`
panels. Definitions are those of metrics.json.
"""

from __future__ import annotations

import collections
import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.modalities import ROUTES_BY_NAME
from synermedgen_jax.evaluation.metrics import BUILT_IN
from synermedgen_jax.evaluation.routes import RouteScore
from synermedgen_jax.tasks.registry import TASKS

VERSION = 1
FILE = 'evaluation/subjects.json'


class ResultError(UserError):
  """A file that a report cannot use; one line that names it."""


def synthesis_by_subject(rows: Iterable[RouteScore]) -> dict[str, Any]:
  """Scores within the body mask, as the file has them.

  Args:
    rows: of all routes, cases and methods.

  Returns:
    {route: {subject: {ssim, psnr, mae, …, baselines: {method: …}}}}.
  """
  by_subject = collections.defaultdict(list)
  for row in rows:
    if not row.full_frame:
      by_subject[row.route, row.subject, row.method].append(row.values)
  result: dict[str, Any] = {}
  for (route, subject, method), cases in by_subject.items():
    mean = {
      name: float(np.mean([values[name] for values in cases]))
      for name in cases[0]
    }
    of_route = result.setdefault(route, {})
    entry = of_route.setdefault(subject, {'baselines': {}})
    if method == 'model':
      entry.update(mean)
    else:
      entry['baselines'][method] = mean
  return result


def answers_of(
  record: Mapping[str, str], subjects: Sequence[str], question: int
) -> list[dict[str, Any]]:
  """The answers to one question, as the file has them.

  Args:
    record: {task, answer, prediction, route}.
    subjects: of its images, in order.
    question: its number within the task.
  """
  scoring = TASKS[record['task']].scoring
  parts = scoring.parts(record['answer'], record['prediction'])
  asked = subjects if scoring.per_image else [subjects[0]] * len(parts)
  right = [
    (subject, int(truth == given))
    for subject, (truth, given) in zip(asked, parts, strict=True)
  ]
  return [
    {
      'question': question,
      'subject': subject,
      'route': record.get('route', ''),
      'right': sum(r for s, r in right if s == subject),
      'asked': sum(s == subject for s, _ in right),
    }
    for subject in dict.fromkeys(s for s, _ in right)
  ]


@dataclasses.dataclass(frozen=True)
class Subjects:
  """One subjects.json.

  Attributes:
    path: of the file.
    settings, subjects, synthesis, understanding: as it has them.
  """

  path: Path
  settings: Mapping[str, Any]
  subjects: Mapping[str, str]
  synthesis: Mapping[str, Mapping[str, Any]]
  understanding: Mapping[str, Mapping[str, Any]]


def read_subjects(path: Path) -> Subjects:
  """Reads and checks the file.

  Raises:
    ResultError: it is missing or malformed; one line.
  """
  again = 'write it again with python -m synermedgen_jax.evaluate.'
  try:
    record = json.loads(path.read_text())
  except (OSError, ValueError) as error:
    detail = ' '.join(str(error).split())
    raise ResultError(f'{path}: cannot be read ({detail}); {again}') from None
  version = record.get('version') if isinstance(record, dict) else None
  if version != VERSION:
    raise ResultError(
      f'{path}: is of version {version}, expected {VERSION}; {again}'
    )
  try:
    found = Subjects(
      path,
      dict(record['settings']),
      {str(s): str(d) for s, d in record['subjects'].items()},
      record.get('synthesis', {}),
      record.get('understanding', {}),
    )
    _check(found)
  except (KeyError, TypeError, ValueError, AttributeError) as error:
    raise ResultError(f'{path}: lacks or misstates {error}; {again}') from None
  return found


def _check(found: Subjects) -> None:
  """KeyError, TypeError or ValueError where something is not as it should."""
  for route, scores in found.synthesis.items():
    ROUTES_BY_NAME[route]
    for subject, entry in scores.items():
      found.subjects[subject]
      for values in (entry, *entry['baselines'].values()):
        for metric in BUILT_IN:
          float(values[metric])
  for task, entry in found.understanding.items():
    if task not in TASKS:
      raise ValueError(f'task {task}, which is not registered')
    float(entry['chance'])
    for answer in entry['answers']:
      found.subjects[answer['subject']]
      if not 0 <= answer['right'] <= answer['asked']:
        raise ValueError(f'{task}: right {answer["right"]}')
