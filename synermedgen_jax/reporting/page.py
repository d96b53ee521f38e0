"""The report as one HTML file."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from synermedgen_jax.core.modalities import route_named
from synermedgen_jax.evaluation.results import EXTERNAL
from synermedgen_jax.evaluation.routes import left_out_note
from synermedgen_jax.evaluation.uncertainty import DEFINITION
from synermedgen_jax.reporting import subject_values
from synermedgen_jax.reporting.charts import stage_title
from synermedgen_jax.reporting.page_tables import (
  Table,
  route_table,
  synthesis_cards,
  task_cards,
  task_table,
  training_table,
  volume_scores,
  worst_table,
)
from synermedgen_jax.reporting.pictures import route_title
from synermedgen_jax.reporting.rendering import render
from synermedgen_jax.reporting.results import Evaluation, Stage
from synermedgen_jax.reporting.uncertainty_chart import (
  HEAD,
  outdated,
  uncertainty_rows,
)
from synermedgen_jax.reporting.viewer import Contents

_WORST = 10  # rows of the table of the worst cases
Note = tuple[str, str]  # words, and a command that helps or ''


def evaluate_command(workdir: Path, *flags: str) -> str:
  """Returns the shell command that measures a stage."""
  folder = shlex.quote(str(workdir))
  command = f'python -m synermedgen_jax.evaluate --workdir={folder}'
  return ' '.join((command, *flags))


def page(
  stages: Sequence[Stage],
  missing: Sequence[str],
  evaluation: Evaluation | None,
  drawings: Mapping[str, Markup],
  contents: Contents,
  left_out: int = 0,
) -> str:
  """Returns the HTML of the report.

  Args:
    stages: first to last; the report is about the last one.
    missing: one line for each earlier stage that cannot be read.
    evaluation: results of the last stage; None = not measured.
    drawings: name -> SVG. Names are loss_curves, route_bars, understanding,
      intervals, confusion_TASK, overview and panels/ROUTE; all optional except
      route_bars if routes were scored.
    contents: cases of the viewer.
    left_out: number of cases beyond the size limit of the page.
  """
  metrics = evaluation.metrics if evaluation else {}
  by_subject = evaluation.subjects if evaluation else None
  scores = subject_values.scores_of(by_subject) if by_subject else []
  synthesis = metrics.get('synthesis', {})
  scores = [score for score in scores if score.route in synthesis]
  values = {
    'worst': worst_table(scores[:_WORST], metrics),
    'all_cases': worst_table(scores, metrics),
    'csv': _data_link(subject_values.csv_text(scores)),
    'viewer': contents.html() if len(contents) else None,
    'routes': route_table(metrics) if synthesis else None,
    'left_out_note': left_out_note(metrics),
    'strips': subject_values.strips_of(scores, synthesis),
    'volume_scores': [*volume_scores(metrics)],
    'intervals': _intervals(evaluation),
    'panels': [*_panels(metrics, drawings)],
    'tasks': task_table(metrics),
    'confusions': [
      (task.upper(), drawings[f'confusion_{task}'])
      for task in metrics.get('understanding', {})
      if f'confusion_{task}' in drawings
    ],
    'training': training_table(stages),
    'configs': [
      (
        stage_title(stage),
        {
          **stage.config,
          **{f'version of {n}': v for n, v in stage.versions.items()},
        },
      )
      for stage in stages
    ],
  }
  return render(
    'report.html',
    stage=stages[-1],
    stage_title=stage_title(stages[-1]),
    about=_about(stages[-1], metrics),
    cards=[*synthesis_cards(metrics), *task_cards(metrics)],
    notes=[*_missing(stages, missing, evaluation, contents, left_out)],
    definitions=metrics.get('definition', {}),
    measured=_measured(metrics),
    interval_definition=DEFINITION,
    drawings=drawings,
    sections=[*_sections(values)],
    **values,
  )


def _sections(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
  """Yields the identifier and the title of every section with content."""
  for name, title, shown in (
    ('worst', 'Worst cases', values['worst'].rows),
    ('viewer-section', 'Viewer', values['viewer']),
    ('routes', 'Routes', values['routes']),
    ('subjects', 'Subjects', values['strips'].rows),
    ('volumes', 'Scores of volumes', values['volume_scores']),
    ('intervals', 'Intervals', values['intervals']),
    ('pictures', 'Pictures', values['routes']),
    ('understanding', 'Understanding', values['tasks']),
    ('training', 'Training', values['training']),
    ('settings', 'Settings', True),
  ):
    if shown:
      yield name, title


def _intervals(evaluation: Evaluation | None) -> Table | None:
  intervals = evaluation and evaluation.intervals
  if not intervals or outdated(
    intervals, evaluation.subjects
  ):  # a note says so
    return None
  return Table(HEAD, uncertainty_rows(intervals), left=(0, 7))


def _about(stage: Stage, metrics: Mapping[str, Any]) -> str:
  about = f', model {stage.config["model"]}' if 'model' in stage.config else ''
  if 'split' in metrics:
    about += (
      f'. Measured on the {metrics["split"]} split of '
      f'{metrics.get("store", "the store")}, '
      f'{len(metrics.get("subjects", ()))} cases'
    )
  if 'synthesiser' in metrics.get('sampling', {}):
    about += f'. Synthesised by {metrics["sampling"]["synthesiser"]}'
  return about


def _missing(
  stages: Sequence[Stage],
  missing: Sequence[str],
  evaluation: Evaluation | None,
  contents: Contents,
  left_out: int,
) -> Iterator[Note]:
  """Yields a note per missing part, with the command that computes it."""
  stage = stages[-1]
  if stage.config['stage'] == EXTERNAL:
    return
  yield from ((line, '') for line in missing)
  for logged in stages:
    if not logged.rows:
      yield (
        f'{logged.workdir}/metrics.jsonl has no logged step, so the curves of '
        f'{stage_title(logged)} are missing. Training writes it:',
        'python -m synermedgen_jax.main --config=… --workdir=…',
      )
  again = evaluate_command(stage.workdir)
  if stage.config['stage'] == 'autoencoder':
    yield (
      'An autoencoder has no answers and no routes; report on a later stage.',
      '',
    )
  elif evaluation is None:
    yield 'This stage has not been measured. Measure it with', again
  else:
    yield from _missing_parts(stage, evaluation, contents, left_out)


def _missing_parts(
  stage: Stage, evaluation: Evaluation, contents: Contents, left_out: int
) -> Iterator[Note]:
  again = evaluate_command(stage.workdir)
  scored = evaluation.metrics.get('synthesis', {})
  if 'synthesis' not in evaluation.metrics:
    if stage.config['stage'] == 'gau':
      yield (
        'Stage I trains no synthesis. Stage II does:',
        'python -m synermedgen_jax.main --config=configs/stage2.py:PRESET '
        f'--config.init_from={shlex.quote(str(stage.workdir))} --workdir=…',
      )
    else:
      yield 'Synthesis has not been measured. Measure it with', again
  if left_out:
    folder = shlex.quote(str(stage.workdir))
    yield (
      f'{left_out} of {left_out + len(contents)} cases are not in the viewer, '
      'which keeps this file below its size limit. Worst cases come first, '
      'then median and best ones. Raise the limit with',
      f'python -m synermedgen_jax.report --workdir={folder} --megabytes=…',
    )
  elif scored and not len(contents):
    yield (
      'The viewer has no volumes. Write them with',
      evaluate_command(stage.workdir, '--volumes'),
    )
  intervals = evaluation.intervals
  if intervals and outdated(intervals, evaluation.subjects):
    steps = ', '.join(map(str, intervals.steps))
    yield (
      f'The intervals in this workdir are of step {steps}, split '
      f'{intervals.split}, not of this evaluation. Calibrate them again with',
      evaluate_command(stage.workdir, '--intervals'),
    )
  if scored and evaluation.subjects is None:
    yield 'Scores of subjects are missing. Compute them with', again
  if without_panel := set(scored) - set(evaluation.panels):
    names = ', '.join(sorted(without_panel))
    yield f'No pictures of {names}. Compute them with', again
  if 'understanding' not in evaluation.metrics:
    yield 'Understanding has not been measured. Measure it with', again
  elif not evaluation.questions:
    yield 'No examples of questions. Compute them with', again


def _panels(
  metrics: Mapping[str, Any], drawings: Mapping[str, Markup]
) -> Iterator[tuple[str, str, Mapping[str, Any], Markup]]:
  for name, score in metrics.get('synthesis', {}).items():
    if f'panels/{name}' in drawings:
      title = route_title(route_named(name))
      yield name, title, score, drawings[f'panels/{name}']


def _measured(metrics: Mapping[str, Any]) -> dict[str, Any]:
  """Settings of the evaluation."""
  names = ('sampling', 'outputs', 'split', 'slices', 'store', 'subjects')
  return {name: metrics[name] for name in names if name in metrics}


def _data_link(text: str) -> str:
  content = base64.b64encode(text.encode()).decode()
  return f'data:text/csv;charset=utf-8;base64,{content}'
