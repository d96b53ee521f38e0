"""Accuracy on a file of questions with four options, see `choice_jsonl`."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from typing import Any

from etils.epath import Path

from synermedgen_jax.core import files
from synermedgen_jax.core.progress import Bar
from synermedgen_jax.evaluation import understanding
from synermedgen_jax.evaluation.routes import align
from synermedgen_jax.inference.answering import Answerer
from synermedgen_jax.inference.workdir import Trained
from synermedgen_jax.input.pipeline import slice_reader
from synermedgen_jax.interop.choice_jsonl import Choice
from synermedgen_jax.tasks.scoring import CHOICE

FOLDER = 'evaluation/questions'
NO_PAIR = 'not stated'
# Limit of the released script, evaluate_mmvp_new.py.
_MAX_TOKENS = 100

Record = Mapping[str, Any]


def ask(
  trained: Trained, choices: Sequence[Choice], *, batch_size: int = 16
) -> list[Record]:
  """Asks a model all questions.

  Args:
    trained: the model.
    choices: the questions.
    batch_size: questions per batch.

  Returns:
    A record per question: `about` of the question, `pair`, `answer` and
    `given` (letters, '' = unread) and `prediction`, the text of the model.
  """
  answerer = Answerer(
    trained.model,
    trained.params,
    trained.tokenizer,
    trained.geometry,
    slice_reader(None),
    batch_size=batch_size,
    max_tokens=_MAX_TOKENS,
  )
  examples = [choice.example for choice in choices]
  with Bar('ask', len(examples), 'question') as bar:
    predictions = answerer.answer(examples, progress=bar.update)
  return [
    {
      **choice.about,
      'pair': choice.pair or NO_PAIR,
      'answer': choice.letter,
      'given': CHOICE.read(prediction)[0],
      'prediction': prediction,
    }
    for choice, prediction in zip(choices, predictions, strict=True)
  ]


def score(records: Sequence[Record]) -> dict[str, Any]:
  """Accuracy over all records and per pair, with definitions.

  Returns:
    {'questions': {accuracy, chance, count, confusion}, 'pairs': {pair:
    {accuracy, chance, count}}, 'definition': {name: words}}.
  """
  by_pair = collections.defaultdict(list)
  for record in records:
    by_pair[record['pair']].append(record)
  pairs = {pair: _scores(by_pair[pair]) for pair in sorted(by_pair)}
  for scores in pairs.values():
    del scores['confusion']
  return {
    'questions': _scores(records),
    'pairs': pairs,
    'definition': {
      **CHOICE.definition,
      'count': 'number of questions',
      'confusion': 'numbers of questions: a row per right letter, a column per '
      f'given letter, the last one for answers without one '
      f'({understanding.UNREAD})',
      'pairs': 'the same for the questions of each `pair`, SOURCE->TARGET; '
      f'"{NO_PAIR}": of the lines without one',
    },
  }


def _scores(records: Sequence[Record]) -> dict[str, Any]:
  parts = [[(record['answer'], record['given'])] for record in records]
  return understanding.score_questions(CHOICE, parts)


def table(scores: Mapping[str, Any]) -> str:
  """Formats the scores as text: a table of pairs and a confusion table."""
  rows = [('pair', 'accuracy', 'chance', 'count', '')]
  named = {**scores['pairs'], 'all': scores['questions']}
  for name, values in named.items():
    numbers = [f'{values[key]:.3f}' for key in ('accuracy', 'chance')]
    rows.append((name, *numbers, str(values['count']), ''))
  confusion = scores['questions']['confusion']
  counts = [('right', *confusion['given'], '')]
  for letter, row in zip(confusion['truth'], confusion['counts'], strict=True):
    counts.append((letter, *map(str, row), ''))
  return f'{align(rows)}\n\n{align(counts)}'


def write(
  workdir: Path,
  path: str,
  records: Sequence[Record],
  scores: Mapping[str, Any],
) -> Path:
  """Writes answers.json and metrics.json below the workdir.

  Args:
    workdir: folder of the run.
    path: the file of questions, for the record.
    records, scores: results of `ask` and `score`.

  Returns:
    The path of metrics.json.
  """
  folder = workdir / FOLDER
  files.write_json(folder / 'answers.json', list(records))
  files.write_json(folder / 'metrics.json', {'file': path, **scores})
  return folder / 'metrics.json'
