"""Reads results of training and evaluation from a workdir."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.modalities import Route, route_named
from synermedgen_jax.core.neighbours import did_you_mean
from synermedgen_jax.evaluation.metrics import BUILT_IN
from synermedgen_jax.evaluation.routes import TRIVIAL, added_metrics
from synermedgen_jax.evaluation.subjects import ResultError
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
  """

  metrics: Mapping[str, Any]
  panels: Mapping[str, Panel]
  questions: Sequence[Question]


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
  record = _read_json(path)
  spec = {'config': {'stage': str, 'init_from': str}, 'versions': {}}
  _check(
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
  metrics = _read_json(path)
  _check(path, metrics, {})
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
  return Evaluation(metrics, panels, questions)


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
    _check(path, metrics.get(part, {}), {}, part)
    for name in metrics.get(part, {}):
      if not known(name):
        raise ResultError(
          f'{path}: {part} has an unknown {name!r}; name the module that '
          f'registers it with --modules, or {_EVALUATE_AGAIN}'
        )
  added = dict.fromkeys(added_metrics(metrics), float)
  for name, score in metrics.get('synthesis', {}).items():
    _check(path, score, _ROUTE | added, f'synthesis.{name}')
  if 'synthesis' in metrics:
    # Results of earlier versions call every higher mean a win.
    _check(path, metrics, {'summary': _SUMMARY, 'definition': {'win': {}}})
    _check(path, metrics.get('left_out', {}), {}, 'left_out')
    if metrics['summary']['better_baseline'] not in TRIVIAL:
      raise ResultError(
        f'{path}: summary.better_baseline is unknown; {_EVALUATE_AGAIN}'
      )
  for task, score in metrics.get('understanding', {}).items():
    _check(path, score, _TASK, f'understanding.{task}')
    if 'confusion' in score:
      key = f'understanding.{task}.confusion'
      _check(path, score['confusion'], _CONFUSION, key)


def _is_route(name: str) -> bool:
  try:
    route_named(name)
  except UserError:
    return False
  return True


_EVALUATE_AGAIN = (
  'write it again with python -m synermedgen_jax.evaluate --workdir=DIR.'
)


def _check(
  path: Path, value: Any, spec: Any, key: str = '', hint: str = ''
) -> None:
  """Raises ResultError unless a value has the keys and types of `spec`."""
  expected = dict if isinstance(spec, Mapping) else spec
  accepted = (int, float) if expected is float else expected
  if not isinstance(value, accepted):
    actual = 'nothing' if value is None else f'{value!r:.40}'
    raise ResultError(
      f'{path}: {key or "content"}: expected {_JSON_NAMES[expected]}, '
      f'got {actual}; {hint or _EVALUATE_AGAIN}'
    )
  if isinstance(spec, Mapping):
    for name, inner in spec.items():
      inner_key = f'{key}.{name}' if key else name
      _check(path, value.get(name), inner, inner_key, hint)


_JSON_NAMES = {
  dict: 'an object',
  list: 'a list',
  float: 'a number',
  int: 'an integer',
  str: 'text',
  bool: 'true or false',
}


def _read_json(path: Path) -> Any:
  try:
    return json.loads(path.read_text('utf-8'))
  except ValueError as error:
    raise ResultError(
      f'{path}: is not JSON ({error}); delete it and run the command that '
      'wrote it again.'
    ) from None


def _read_npz(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
  try:
    with np.load(path, allow_pickle=False) as file:
      return {name: file[name] for name in names}
  except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
    detail = ' '.join(str(error).split())
    raise ResultError(
      f'{path}: cannot be read ({detail}); {_EVALUATE_AGAIN}'
    ) from None


def read_panel(path: Path) -> Panel:
  """Reads the panel of a route, `ROUTE.npz`.

  Raises:
    ResultError: the file cannot be read, or its arrays do not fit together.
  """
  images = ('source', 'synthesis', 'truth')
  bounds = ('source_window', 'target_window')
  names = (*images, 'mask', 'indices', *bounds, 'plane', 'subject')
  arrays = _read_npz(path, names)
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
    raise ResultError(f'{path}: {problem}; {_EVALUATE_AGAIN}')
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
  records = _read_json(path)
  _check(path, records, list)
  images = _read_npz(folder / 'understanding.npz', ['images'])['images']
  texts = ('task', 'question', 'answer', 'prediction')
  spec = {**dict.fromkeys(texts, str), 'images': list, 'letters': list}
  questions = []
  for number, record in enumerate(records):
    _check(path, record, spec, f'[{number}]')
    indices = record['images']
    known = range(len(images)) if images.ndim == 3 else ()
    if not indices or any(index not in known for index in indices):
      raise ResultError(
        f'{path}: [{number}] names images that understanding.npz lacks; '
        f'{_EVALUATE_AGAIN}'
      )
    tasks = [task.name for task in asked_tasks()]
    if record['task'] not in tasks or len(record['letters']) != len(indices):
      raise ResultError(
        f'{path}: [{number}] is not a question of {", ".join(tasks)} with a '
        f'letter per image; {_EVALUATE_AGAIN}'
      )
    questions.append(
      Question(
        **{name: record[name] for name in texts},
        images=images[indices].astype(np.float32),
        letters=tuple(map(str, record['letters'])),
      )
    )
  return questions
