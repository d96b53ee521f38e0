"""Reads results of training and evaluation from a workdir."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.modalities import Route, route_named
from synermedgen_jax.core.neighbours import did_you_mean
from synermedgen_jax.evaluation import subjects
from synermedgen_jax.evaluation.metrics import BUILT_IN
from synermedgen_jax.evaluation.named_scores import ALL_SCORES
from synermedgen_jax.evaluation.routes import TRIVIAL, added_metrics
from synermedgen_jax.evaluation.subjects import ResultError, Subjects
from synermedgen_jax.inference.intervals import FILE as INTERVALS
from synermedgen_jax.inference.intervals import Calibration
from synermedgen_jax.reporting.result_files import (
  EVALUATE_AGAIN,
  check,
  read_json,
  read_npz,
)
from synermedgen_jax.slices.grids import PLANES
from synermedgen_jax.tasks.registry import asked_tasks

Images = Float[np.ndarray, 'n h w']


@dataclasses.dataclass(frozen=True)
class Stage:
  """One stage of training.

  Attributes:
    workdir: workdir of the run.
    config: config of the run, as plain values.
    versions: library -> version.
    rows: name -> value for each logged step, in order.
  """

  workdir: Path
  config: Mapping[str, Any]
  versions: Mapping[str, str]
  rows: Sequence[Mapping[str, float]]

  def curve(
    self, name: str
  ) -> tuple[Int[np.ndarray, ' k'], Float[np.ndarray, ' k']]:
    """The steps at which `name` was logged, and its values."""
    points = [(row['step'], row[name]) for row in self.rows if name in row]
    steps, values = zip(*points, strict=True) if points else ((), ())
    return np.array(steps, int), np.array(values, float)


@dataclasses.dataclass(frozen=True)
class Panel:
  """A few slices of a held-out subject.

  Attributes:
    route: sources -> target.
    sources: slices of each source; [-1, 1] spans its `source_windows`.
    synthesis, truth: target slices; [-1, 1] spans `target_window`.
    mask: body mask.
    indices: indices of the slices in their volume.
    source_windows: low and high of each source, in its unit.
    target_window: low and high of the target, in its unit.
    plane: plane of the slices, a name in `grids.PLANES`.
    subject: name of the subject.
  """

  route: Route
  sources: Float[np.ndarray, 's n h w']
  synthesis: Images
  truth: Images
  mask: Bool[np.ndarray, 'n h w']
  indices: Int[np.ndarray, ' n']
  source_windows: Sequence[tuple[float, float]]
  target_window: tuple[float, float]
  plane: str
  subject: str

  @property
  def error(self) -> Images:
    """Synthesis minus truth in the target's unit, clipped to its window."""
    synthesis, truth = (
      np.clip(x, -1, 1).astype(np.float64) for x in (self.synthesis, self.truth)
    )
    low, high = self.target_window
    return (synthesis - truth) * (high - low) / 2


@dataclasses.dataclass(frozen=True)
class Question:
  """A question with its images and the model's answer.

  Attributes:
    task: a name in `tasks.registry`.
    question: text; lines after the first are options.
    answer: the right answer.
    prediction: the model's answer.
    images: images in [-1, 1], in the order of the question.
    letters: label of each image; '' = none.
  """

  task: str
  question: str
  answer: str
  prediction: str
  images: Images
  letters: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """The results of `evaluate`.

  Attributes:
    metrics: validated content of metrics.json.
    panels: route name -> panel.
    questions: the questions whose images were kept.
    subjects: scores of every subject; None if the file is missing.
    intervals: calibrated intervals; None if they were not measured.
  """

  metrics: Mapping[str, Any]
  panels: Mapping[str, Panel]
  questions: Sequence[Question]
  subjects: Subjects | None
  intervals: Calibration | None = None


def read_stages(workdir: Path) -> tuple[list[Stage], list[str]]:
  """Reads a workdir and the earlier stages that `init_from` leads to.

  Returns:
    The stages, first to last, and one line about each that is missing.

  Raises:
    ResultError: the workdir has no config.json, or a file is malformed.
  """
  if not (workdir / 'config.json').is_file():
    raise ResultError(
      f'{workdir}: has no config.json; train a stage in it with '
      f'python -m synermedgen_jax.main.{did_you_mean(workdir)}'
    )
  stages, missing, seen = [], [], set()
  while True:
    if workdir.resolve() in seen:
      raise ResultError(
        f'{workdir / "config.json"}: init_from leads back to the same stage; '
        'correct it.'
      )
    seen.add(workdir.resolve())
    stages.insert(0, _read_stage(workdir))
    earlier = stages[0].config['init_from']
    if not earlier:
      return stages, missing
    workdir = Path(earlier)
    if not (workdir / 'config.json').is_file():
      missing.append(
        f'Stage {stages[0].config["stage"]} started from {earlier}, which '
        'has no config.json, so the report leaves it out.'
      )
      return stages, missing


def _read_stage(workdir: Path) -> Stage:
  path = workdir / 'config.json'
  record = read_json(path)
  spec = {'config': {'stage': str, 'init_from': str}, 'versions': {}}
  check(
    path,
    record,
    spec,
    hint='train the stage again with python -m synermedgen_jax.main.',
  )
  rows = _read_rows(workdir / 'metrics.jsonl')
  return Stage(workdir, record['config'], record['versions'], rows)


def _read_rows(path: Path) -> list[dict[str, float]]:
  if not path.is_file():
    return []
  # Skip an unterminated last line: it is incomplete.
  lines = path.read_text('utf-8', errors='replace').split('\n')[:-1]
  rows = []
  for number, line in enumerate(lines, start=1):
    try:
      row = json.loads(line)
      row['step'] = int(row['step'])
      rows.append({name: float(value) for name, value in row.items()})
    except (ValueError, KeyError, TypeError, AttributeError):
      raise ResultError(
        f'{path}: line {number} is not a row of metrics; delete that line.'
      ) from None
  return rows


def read_evaluation(workdir: Path) -> Evaluation | None:
  """Reads the results of `evaluate` from a workdir; None if there are none.

  Raises:
    ResultError: a file is malformed.
  """
  folder = workdir / 'evaluation'
  path = folder / 'metrics.json'
  if not path.is_file():
    return None
  metrics = read_json(path)
  check(path, metrics, {})
  _check_metrics(path, metrics)
  panels = {}
  for name in metrics.get('synthesis', {}):
    # The folder may have panels of earlier evaluations with other routes.
    panel = folder / 'panels' / f'{name}.npz'
    if panel.is_file():
      panels[name] = read_panel(panel)
  questions = []
  if 'understanding' in metrics and (folder / 'understanding.json').is_file():
    questions = _read_questions(folder)
  file = workdir / subjects.FILE
  by_subject = subjects.read_subjects(file) if file.is_file() else None
  intervals = (workdir / INTERVALS).is_file()
  return Evaluation(
    metrics,
    panels,
    questions,
    by_subject,
    Calibration.read(workdir) if intervals else None,
  )


_SCORE = dict.fromkeys(BUILT_IN, float)
_ROUTE = {
  **_SCORE,
  'count': int,
  'unit': str,
  'win': bool,
  'full_frame': _SCORE,
  'baselines': {'copy_source': _SCORE},
}
_SUMMARY = {
  'routes': int,
  'wins': int,
  'mean_ssim': float,
  'mean_ssim_baselines': {'copy_source': float},
  'better_baseline': str,
}
_TASK = {'accuracy': float, 'chance': float, 'count': int}
_CONFUSION = {'truth': list, 'given': list, 'counts': list}


def _check_metrics(path: Path, metrics: Mapping[str, Any]) -> None:
  tasks = [task.name for task in asked_tasks()]
  for part, known in (
    ('synthesis', _is_route),
    ('understanding', tasks.__contains__),
  ):
    check(path, metrics.get(part, {}), {}, part)
    for name in metrics.get(part, {}):
      if not known(name):
        raise ResultError(
          f'{path}: {part} has an unknown {name!r}; name the module that '
          f'registers it with --modules, or {EVALUATE_AGAIN}'
        )
  added = dict.fromkeys(added_metrics(metrics), float)
  for name, score in metrics.get('synthesis', {}).items():
    check(path, score, _ROUTE | added, f'synthesis.{name}')
    _check_interval(path, name, score)
  for score in ALL_SCORES:
    check(path, metrics.get(score, {}), {}, score)
    for name, values in metrics.get(score, {}).items():
      if not _is_route(name):
        raise ResultError(f'{path}: {score} has an unknown {name!r}.')
      numbers = dict.fromkeys(values, float) if values else {}
      check(path, values, numbers, f'{score}.{name}')
  if 'synthesis' in metrics:
    # Results of earlier versions call every higher mean a win.
    check(path, metrics, {'summary': _SUMMARY, 'definition': {'win': {}}})
    check(path, metrics.get('left_out', {}), {}, 'left_out')
    if metrics['summary']['better_baseline'] not in TRIVIAL:
      raise ResultError(
        f'{path}: summary.better_baseline is unknown; {EVALUATE_AGAIN}'
      )
  for task, score in metrics.get('understanding', {}).items():
    check(path, score, _TASK, f'understanding.{task}')
    if 'confusion' in score:
      key = f'understanding.{task}.confusion'
      check(path, score['confusion'], _CONFUSION, key)
    for fact, of_fact in score.get('facts', {}).items():
      check(path, of_fact, _TASK, f'understanding.{task}.facts.{fact}')


def _check_interval(path: Path, name: str, score: Mapping[str, Any]) -> None:
  """Checks the interval and the difference; both are null with one subject."""
  for key, count in (('interval', 2), ('difference', 3)):
    values = score.get(key)
    if values is not None and not (
      isinstance(values, list)
      and len(values) == count
      and all(isinstance(value, (int, float)) for value in values)
    ):
      raise ResultError(
        f'{path}: synthesis.{name}.{key}: expected {count} numbers or null; '
        f'{EVALUATE_AGAIN}'
      )


def _is_route(name: str) -> bool:
  try:
    route_named(name)
  except UserError:
    return False
  return True


def read_panel(path: Path) -> Panel:
  """Reads the panel of a route, `ROUTE.npz`.

  Raises:
    ResultError: the file cannot be read, or its arrays do not fit together.
  """
  images = ('source', 'synthesis', 'truth')
  bounds = ('source_window', 'target_window')
  names = (*images, 'mask', 'indices', *bounds, 'plane', 'subject')
  arrays = read_npz(path, names)
  route = route_named(path.stem)
  count, shape = len(route.sources), arrays['truth'].shape
  # Files of earlier versions lack the axis of their one source.
  sources, windows = (
    x if x.ndim == ndim else x[None]
    for x, ndim in ((arrays['source'], 4), (arrays['source_window'], 2))
  )
  problem = ''
  if len(shape) != 3 or 0 in shape:
    problem = f'truth has shape {shape}, expected (slices, rows, columns)'
  elif any(arrays[name].shape != shape for name in ('synthesis', 'mask')) or (
    sources.shape != (count, *shape)
  ):
    problem = (
      f'source, synthesis, truth and mask differ in shape, or not {count} '
      'source(s) are shown'
    )
  elif arrays['indices'].shape != shape[:1]:
    problem = f'{len(arrays["indices"])} indices for {shape[0]} slices'
  elif windows.shape != (count, 2) or any(
    w.shape != (2,) or not w[0] < w[1]
    for w in (*windows, arrays['target_window'])
  ):
    problem = 'a window must be two values, the lower one first'
  elif str(arrays['plane']) not in PLANES:
    problem = f'unknown plane {arrays["plane"]}'
  if problem:
    raise ResultError(f'{path}: {problem}; {EVALUATE_AGAIN}')
  return Panel(
    route,
    *(x.astype(np.float32) for x in (sources, arrays['synthesis'])),
    arrays['truth'].astype(np.float32),
    arrays['mask'].astype(bool),
    arrays['indices'].astype(int),
    tuple(map(tuple, windows.tolist())),
    tuple(arrays['target_window'].tolist()),
    str(arrays['plane']),
    str(arrays['subject']),
  )


def _read_questions(folder: Path) -> list[Question]:
  path = folder / 'understanding.json'
  records = read_json(path)
  check(path, records, list)
  images = read_npz(folder / 'understanding.npz', ['images'])['images']
  texts = ('task', 'question', 'answer', 'prediction')
  spec = {**dict.fromkeys(texts, str), 'images': list, 'letters': list}
  questions = []
  for number, record in enumerate(records):
    check(path, record, spec, f'[{number}]')
    indices = record['images']
    known = range(len(images)) if images.ndim == 3 else ()
    if not indices or any(index not in known for index in indices):
      raise ResultError(
        f'{path}: [{number}] names images that understanding.npz lacks; '
        f'{EVALUATE_AGAIN}'
      )
    tasks = [task.name for task in asked_tasks()]
    if record['task'] not in tasks or len(record['letters']) != len(indices):
      raise ResultError(
        f'{path}: [{number}] is not a question of {", ".join(tasks)} with a '
        f'letter per image; {EVALUATE_AGAIN}'
      )
    questions.append(
      Question(
        **{name: record[name] for name in texts},
        images=images[indices].astype(np.float32),
        letters=tuple(map(str, record['letters'])),
      )
    )
  return questions
