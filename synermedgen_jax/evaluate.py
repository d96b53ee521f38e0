"""Measures a trained stage on held-out subjects.

  python -m synermedgen_jax.evaluate --workdir=runs/demo/stage2
  python -m synermedgen_jax.evaluate --workdir=runs/demo/stage1 \\
      --parts=understanding,synthesis
  python -m synermedgen_jax.evaluate --workdir=runs/base \\
      --config=configs/stage2.py:init_from --config.init_from=weights/small \\
      --config.store=runs/demo/store

Asks the three understanding tasks and, for stages that train synthesis, runs
every route beside its baselines; --parts asks a Stage I to synthesise, too
(zero-shot). With --config, what `config.init_from` holds is measured as it is,
without a run, and DIR only takes the results. Writes DIR/evaluation/
metrics.json, subjects.json (the same per subject, for intervals), the pictures'
arrays for `report`, and prints both tables. Every number's definition is in
the file.
"""

import dataclasses
import itertools
import json
import os
import sys
from pathlib import Path

import numpy as np
from absl import app, flags, logging
from ml_collections import config_flags
from tqdm import tqdm

from synermedgen_jax.evaluation import (
  metrics,
  protocol,
  routes,
  subjects,
  understanding,
)
from synermedgen_jax.inference.answering import Answerer
from synermedgen_jax.inference.workdir import Trained, WorkdirError
from synermedgen_jax.input.pipeline import slice_reader
from synermedgen_jax.slices.splits import SPLITS
from synermedgen_jax.slices.store import Case, SliceStore, StoreError
from synermedgen_jax.tasks import prompts
from synermedgen_jax.training.checkpoints import CheckpointError
from synermedgen_jax.training.command_line import parse_config_flags
from synermedgen_jax.training.config_checks import ConfigError

_WORKDIR = flags.DEFINE_string('workdir', None, 'A stage that was trained.')
_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'Instead of a run: measure what config.init_from holds.'
)
_STORE = flags.DEFINE_string(
  'store', None, 'Slice store; the one it was trained on by default.'
)
_SPLIT = flags.DEFINE_enum('split', 'test', SPLITS, 'Which subjects.')
_PARTS = flags.DEFINE_list(
  'parts', None, 'understanding, synthesis; by default what the stage trained.'
)
_QUESTIONS = flags.DEFINE_integer(
  'questions', 256, 'Questions per task.', lower_bound=1
)
_SLICES = flags.DEFINE_integer(
  'slices', 0, 'Slices per case, evenly spread; 0 = all.', lower_bound=0
)
_ROUTES = flags.DEFINE_list('routes', [], 'Keep these routes; empty = all.')
_POINTS = flags.DEFINE_integer(
  'points', None, "Points of the sampler; the config's by default."
)
_BATCH = flags.DEFINE_integer(
  'batch_size', 16, 'Rows at a time.', lower_bound=1
)
_SEED = flags.DEFINE_integer('seed', 0, 'Of the draws and of the noise.')

_PARTS_OF_STAGE = {
  'gau': ('understanding',),
  'ucg': ('understanding', 'synthesis'),
  'joint': ('understanding', 'synthesis'),
}
_EXAMPLES = 6  # questions kept as pictures, per task
# What names the image that it follows.
_LABELS = (*prompts.LETTERS, prompts.TIA_SOURCE, prompts.TIA_TARGET)


class UsageError(ValueError):
  """Flags or a workdir that do not fit."""


def _parts(stage: str) -> tuple[str, ...]:
  parts = tuple(_PARTS.value or _PARTS_OF_STAGE.get(stage, ()))
  unknown = set(parts) - {'understanding', 'synthesis'}
  if unknown:
    raise UsageError(
      f'--parts: unknown {", ".join(sorted(unknown))}, expected '
      'understanding or synthesis.'
    )
  if not parts:
    raise UsageError(
      f'{_WORKDIR.value}: stage {stage} answers and synthesises nothing; '
      'evaluate a later stage.'
    )
  return parts


def _understanding(trained: Trained, store: SliceStore, cases) -> tuple:
  """Scores of the questions, and a few of them to look at."""
  read = slice_reader(store)
  answerer = Answerer(
    trained.model,
    trained.params,
    trained.tokenizer,
    trained.geometry,
    read,
    batch_size=_BATCH.value,
  )
  by_id = {case.id: _subject(case) for case in cases}
  asked = {
    task: protocol.draw_questions(
      cases,
      task,
      _QUESTIONS.value,
      seed=_SEED.value,
      neighbours=trained.config['neighbours'],
    )
    for task in protocol.QUESTION_TASKS
  }
  # Of one shape, all are one program.
  capacity = answerer.capacity_for(list(itertools.chain(*asked.values())))
  records, kept, images, answered = [], [], [], {}
  for task, examples in asked.items():
    with tqdm(total=len(examples), desc=f'ask {task}', unit='question') as bar:
      answers = answerer.answer(
        examples, capacity=capacity, progress=bar.update
      )
    for i, (example, answer) in enumerate(zip(examples, answers, strict=True)):
      record = {
        'task': task,
        'answer': example.answer,
        'prediction': answer,
        'route': example.route.name if example.route else '',
      }
      records.append(record)
      shown = [by_id[s.image.case] for s in example.spans if s.image]
      answered.setdefault(task, []).extend(
        subjects.answers_of(record, shown, i)
      )
      if i < _EXAMPLES:
        kept.append(record | _picture(example, read, images))
  found = understanding.score(records)
  answered = {
    task: {'chance': score['chance'], 'answers': answered[task]}
    for task, score in found['understanding'].items()
  }
  return found, kept, images, answered


def _subject(case: Case) -> str:
  """Whom a case shows, among all datasets."""
  return f'{case.dataset}.{case.subject}'


def _picture(example, read, images: list) -> dict:
  """The words of a question, and where its pictures are in `images`."""
  question, places, labels = [], [], []
  after_image = False
  for span in example.prompt.spans:
    if span.kind != 'text':
      places.append(len(images))
      images.append(read(span.image))
      labels.append('')
    elif after_image and span.text in _LABELS:
      labels[-1] = span.text
    elif span.text in prompts.LETTERS:
      question[-1] += f' {span.text}'
    else:
      question.append(span.text)
    after_image = span.kind != 'text'
  return {
    'question': '\n'.join(question),
    'images': places,
    'letters': labels,
  }


def _synthesis(trained: Trained, store: SliceStore, cases, panels: Path):
  """Scores of all routes; the first subject of each goes to a picture."""
  synthesiser = trained.synthesiser(
    points=_POINTS.value, batch_size=_BATCH.value
  )
  items = list(
    protocol.route_cases(
      store, cases, slices=_SLICES.value, routes=_ROUTES.value
    )
  )
  if not items:
    raise UsageError(f'{store.path}: no subject of {_SPLIT.value} has a route.')
  means = protocol.MeanTargets(store)
  missing = [r.name for r in means.missing({item.route for item in items})]
  if missing:
    raise UsageError(
      f'{store.path}: has no training subject for the mean target of '
      f'{", ".join(missing)}; choose others with --routes.'
    )
  scores, seen = [], set()
  total = sum(len(item.indices) for item in items)
  with tqdm(total=total, desc='synthesise', unit='slice') as bar:

    def synthesise(route, source):
      return synthesiser.synthesise(
        route, source, seed=_SEED.value, progress=bar.update
      )

    for item, synthesis, rows in protocol.score_routes(
      items, synthesise, synthesiser.reconstruct, means
    ):
      scores += rows
      if item.route.name not in seen:
        seen.add(item.route.name)
        arrays = protocol.panel(item, synthesis)
        _write_npz(panels / f'{item.route.name}.npz', arrays)
  sampling = dataclasses.asdict(synthesiser.sampling)
  by_subject = subjects.synthesis_by_subject(scores)
  return routes.aggregate(scores), sampling, by_subject


def _write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(f'.{path.name}.partial.npz')
  np.savez(partial, **arrays)
  os.replace(partial, path)


def _write_json(path: Path, value) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(f'.{path.name}.partial')
  partial.write_text(json.dumps(value, indent=2) + '\n')
  os.replace(partial, path)


def _held_out(trained: Trained) -> tuple[SliceStore, tuple[Case, ...]]:
  """The store, and its cases of the split that is measured."""
  path = _STORE.value or trained.config['store']
  if not path:
    raise UsageError(
      f'--store: {_WORKDIR.value} was trained on none; name one.'
    )
  store = SliceStore.open(path)
  cases = store.split(_SPLIT.value)
  if not cases:
    raise UsageError(
      f'{store.path}: has no subject in split {_SPLIT.value!r}; '
      'choose another --split.'
    )
  return store, cases


def _evaluate() -> None:
  unknown = set(_ROUTES.value) - set(routes.ROUTES_BY_NAME)
  if unknown:
    raise UsageError(
      f'--routes: unknown {", ".join(sorted(unknown))}; expected some of '
      f'{", ".join(routes.ROUTES_BY_NAME)}.'
    )
  config = _CONFIG.value
  trained = (
    Trained.from_config(config) if config else Trained.load(_WORKDIR.value)
  )
  parts = _parts(trained.config['stage'])
  store, cases = _held_out(trained)
  out = Path(_WORKDIR.value) / 'evaluation'
  result = {
    'split': _SPLIT.value,
    'store': store.path,
    'subjects': sorted({c.id for c in cases}),
    'definition': {},
  }
  by_subject = {
    'version': subjects.VERSION,
    'settings': {
      'split': _SPLIT.value,
      'slices': _SLICES.value,
      'questions': _QUESTIONS.value,
      'seed': _SEED.value,
      'neighbours': trained.config['neighbours'],
    },
    'subjects': {_subject(case): case.dataset for case in cases},
  }
  if 'understanding' in parts:
    found, kept, images, answers = _understanding(trained, store, cases)
    result |= found
    by_subject['understanding'] = answers
    result['definition']['understanding'] = understanding.DEFINITION
    _write_npz(out / 'understanding.npz', {'images': np.stack(images)})
    _write_json(out / 'understanding.json', kept)
    print('\n' + understanding.understanding_table(found))
  if 'synthesis' in parts:
    found, sampling, scores = _synthesis(trained, store, cases, out / 'panels')
    by_subject['synthesis'] = scores
    result |= found
    result['sampling'] = sampling
    result['slices'] = _SLICES.value or 'all usable'
    result['definition']['synthesis'] = metrics.DEFINITION
    print('\n' + routes.route_table(found))
  _write_json(Path(_WORKDIR.value) / subjects.FILE, by_subject)
  _write_json(out / 'metrics.json', result)
  print(f'\nMetrics: {out / "metrics.json"}')


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    sys.exit(f'Unexpected argument {argv[1]!r}: options begin with --.')
  if not flags.FLAGS['verbosity'].present:
    logging.set_verbosity(logging.WARNING)  # Orbax tells every file it reads
  try:
    _evaluate()
  except (
    UsageError,
    WorkdirError,
    ConfigError,
    StoreError,
    CheckpointError,
  ) as error:
    sys.exit(f'Error: {error}')


if __name__ == '__main__':
  flags.mark_flag_as_required('workdir')
  app.run(main, flags_parser=parse_config_flags)
