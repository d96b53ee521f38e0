"""The report of a run: its page, its pictures, its tables as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from synermedgen_jax.config.modules import check_imported
from synermedgen_jax.core import files, progress
from synermedgen_jax.evaluation.routes import route_table
from synermedgen_jax.evaluation.understanding import understanding_table
from synermedgen_jax.reporting import charts, pictures
from synermedgen_jax.reporting.drawings import to_svg
from synermedgen_jax.reporting.page import page
from synermedgen_jax.reporting.results import (
  Evaluation,
  Stage,
  read_evaluation,
  read_stages,
)
from synermedgen_jax.reporting.shown_cases import contents_of, shown_paths
from synermedgen_jax.reporting.subject_values import (
  Score,
  csv_text,
  panel_ssim,
  scores_of,
)
from synermedgen_jax.reporting.uncertainty_chart import (
  outdated,
  uncertainty_chart,
)
from synermedgen_jax.reporting.viewer import Contents


def report(workdir: Path, output: Path, megabytes: float = 40) -> list[Path]:
  """Writes the report of a workdir.

  Args:
    workdir: workdir of the stage.
    output: folder for the report.
    megabytes: size limit of the page; cases of the viewer that exceed it are
      left out, worst cases being the first to be added.

  Returns:
    The files written, the page last.

  Raises:
    ResultError: a file of the run is missing or malformed.
    ModuleMissing: the run was trained with modules that are not imported.
  """
  stages, missing = read_stages(workdir)
  check_imported(stages[-1].config.get('modules', ()), str(workdir))
  evaluation = read_evaluation(workdir)
  scores = _scores(evaluation)
  volumes = _volumes(workdir, evaluation)
  # The viewer shows these routes; their pictures are files beside the page.
  in_viewer = {f'panels/{path.parent.name}' for path in volumes}
  made, drawn = {}, {}
  figures = list(_draw(stages, evaluation, scores))
  for name, words, figure in progress.each(
    figures, 'draw', len(figures), 'picture'
  ):
    made[f'{name}.png'] = pictures.to_png(figure)
    if name not in in_viewer:
      drawn[name] = to_svg(figure, words)
  about = stages, missing, evaluation, drawn
  rest = len(page(*about, Contents()).encode())
  contents, left_out = contents_of(volumes, 1e6 * megabytes - rest)
  text = page(*about, contents, left_out)
  # Everything has been read: a malformed file leaves no half of a report.
  if scores:
    made['subjects.csv'] = csv_text(scores).encode()
  made['index.html'] = text.encode()
  for name, content in made.items():
    files.write_bytes(output / name, content)
  return [output / name for name in made]


def _scores(evaluation: Evaluation | None) -> list[Score]:
  return (
    scores_of(evaluation.subjects) if evaluation and evaluation.subjects else []
  )


def _volumes(workdir: Path, evaluation: Evaluation | None) -> list[Path]:
  routes = evaluation.metrics.get('synthesis', {}) if evaluation else {}
  return shown_paths(workdir / 'evaluation', routes)


def _draw(
  stages: Sequence[Stage],
  evaluation: Evaluation | None,
  scores: Sequence[Score],
) -> Iterator[tuple[str, str, Figure]]:
  """Yields name, description and figure for every picture with results."""
  logged = [stage for stage in stages if stage.curve('loss')[0].size]
  if logged:
    yield (
      'loss_curves',
      'losses and accuracies by step',
      charts.loss_curves(logged),
    )
  if evaluation is None:
    return
  metrics = evaluation.metrics
  if metrics.get('synthesis'):
    yield 'route_bars', 'SSIM per route', charts.route_bars(metrics)
  if evaluation.questions:
    picture = pictures.understanding_picture(evaluation.questions)
    yield 'understanding', 'a question of each task, with answers', picture
  for task, score in metrics.get('understanding', {}).items():
    if 'confusion' in score:
      picture = charts.confusion_picture(task, score['confusion'])
      yield f'confusion_{task}', f'confusion table of {task}', picture
  intervals = evaluation.intervals
  if intervals and not outdated(intervals, evaluation.subjects):
    picture = uncertainty_chart(intervals)
    yield 'intervals', 'coverage of intervals, sparsification', picture
  if evaluation.panels:
    picture = pictures.overview(evaluation.panels)
    yield 'overview', 'a slice of several routes', picture
  for name, panel in evaluation.panels.items():
    picture = pictures.route_panel(panel, panel_ssim(panel, scores))
    yield f'panels/{name}', f'slices of {name}', picture


def tables(workdir: Path) -> Iterator[str]:
  """Yields the tables of a workdir's results as text."""
  evaluation = read_evaluation(workdir)
  metrics = evaluation.metrics if evaluation else {}
  if metrics.get('understanding'):
    yield understanding_table(metrics)
  if metrics.get('synthesis'):
    yield route_table(metrics)
