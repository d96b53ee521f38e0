"""Results of `evaluate` per subject, in subjects.json.

metrics.json has the means; bootstrap intervals need the values per subject. A
subject is a person (`Case.person`): the sessions of a patient count as one.
The format is:

  {"version": 1,
   "settings": {"split", "slices", "questions", "seed", "neighbours", "store",
     "steps": step of the checkpoint of each run},
   "sampling": timesteps and guidance, where routes were synthesised,
   "subjects": {"brain.brain_003": "brain", …}: subject -> dataset,
   "synthesis": {route: {subject: {"ssim", "psnr", "mae", …,
     "baselines": {"copy_source": {"ssim", …}, "mean_target": …, "ceiling": …}
   }}}: in the body mask, mean over the cases of a subject, of every metric that
   metrics.json defines, and of the model also of every score of volumes, as
   "tissue/bone_mae",
   "understanding": {task: {"chance": 0.25, "answers": [
     {"question": 0, "subject": "brain.brain_003", "route": "brain_mr_to_ct",
      "right": 1, "asked": 1}, …]}}}

A question that is answered with a letter is about one subject and has one
answer. The panels of an MI question may show several subjects; it has one entry
per subject with the number of its panels, `asked`, and of right answers,
`right`. metrics.json has the definitions.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.modalities import route_named
from synermedgen_jax.evaluation.metrics import BUILT_IN
from synermedgen_jax.evaluation.routes import RouteScore
from synermedgen_jax.tasks.registry import TASKS

VERSION = 1
FILE = 'evaluation/subjects.json'


class ResultError(UserError):
  """A result file is missing or malformed; one line that names it."""


def synthesis_by_subject(rows: Iterable[RouteScore]) -> dict[str, Any]:
  """Averages scores in the body mask over the cases of each subject.

  Args:
    rows: scores of all routes, cases and methods.

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
    entry = result.setdefault(route, {}).setdefault(subject, {'baselines': {}})
    if method == 'model':
      entry.update(mean)
    else:
      entry['baselines'][method] = mean
  return result


def answers_of(
  record: Mapping[str, str], subjects: Sequence[str], question: int
) -> list[dict[str, Any]]:
  """Returns the entries of one question in the `answers` of its task.

  Args:
    record: {task, answer, prediction, route}.
    subjects: subject of each image, in order.
    question: number of the question within the task.
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
  """Content of one subjects.json.

  Attributes:
    path: path of the file.
    settings, subjects, sampling, synthesis, understanding: values of these
      keys.
  """

  path: Path
  settings: Mapping[str, Any]
  subjects: Mapping[str, str]
  sampling: Mapping[str, Any]
  synthesis: Mapping[str, Mapping[str, Any]]
  understanding: Mapping[str, Mapping[str, Any]]


def read_subjects(path: Path) -> Subjects:
  """Reads and validates a subjects.json.

  Raises:
    ResultError: the file is missing or malformed.
  """
  again = 'write it again with python -m synermedgen_jax.evaluate.'
  try:
    record = json.loads(path.read_text('utf-8'))
  except (OSError, ValueError) as error:
    detail = ' '.join(str(error).split())
    raise ResultError(f'{path}: cannot be read ({detail}); {again}') from None
  version = record.get('version') if isinstance(record, dict) else None
  if version != VERSION:
    raise ResultError(
      f'{path}: has version {version}, expected {VERSION}; {again}'
    )
  try:
    result = Subjects(
      path,
      dict(record['settings']),
      {str(s): str(d) for s, d in record['subjects'].items()},
      record.get('sampling', {}),
      record.get('synthesis', {}),
      record.get('understanding', {}),
    )
    _check(result)
  except (KeyError, TypeError, ValueError, AttributeError) as error:
    detail = str(error).rstrip('.')
    raise ResultError(
      f'{path}: missing or invalid: {detail}; {again}'
    ) from None
  return result


def _check(result: Subjects) -> None:
  """Raises KeyError, TypeError or ValueError if a value is invalid."""
  for name in ('store', 'split', 'slices'):
    if name not in result.settings:
      raise ValueError(f'settings without {name}')
  for route, scores in result.synthesis.items():
    route_named(route)  # raises where no module registers it
    for subject, entry in scores.items():
      result.subjects[subject]
      _check_scores(entry, f'{route}, {subject}')
      for baseline, values in entry['baselines'].items():
        _check_scores(values, f'{route}, {subject}, {baseline}')
  for task, entry in result.understanding.items():
    if task not in TASKS:
      raise ValueError(f'task {task}, which no module of --modules registers')
    if not _finite(entry['chance']):
      raise ValueError(f'{task}: chance is {entry["chance"]}')
    for answer in entry['answers']:
      result.subjects[answer['subject']]
      if not 0 <= answer['right'] <= answer['asked']:
        raise ValueError(f'{task}: right {answer["right"]}')


def _check_scores(entry: Mapping[str, Any], where: str) -> None:
  """Raises ValueError if a score is missing or not a finite number."""
  for metric in dict.fromkeys((*BUILT_IN, *entry)):
    value = entry.get(metric)
    if metric != 'baselines' and not _finite(value):
      raise ValueError(f'{where}: {metric} is {value}')


def _finite(value: Any) -> bool:
  return isinstance(value, (int, float)) and math.isfinite(value)
