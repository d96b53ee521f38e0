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
from synermedgen_jax.reporting.page import page
from synermedgen_jax.reporting.results import (
  Evaluation,
  Stage,
  read_evaluation,
  read_stages,
)


def report(workdir: Path, output: Path) -> list[Path]:
  """Writes the report of a workdir.

  Args:
    workdir: workdir of the stage.
    output: folder for the report.

  Returns:
    The files written, the page last.

  Raises:
    ResultError: a file of the run is missing or malformed.
    ModuleMissing: the run was trained with modules that are not imported.
  """
  stages, missing = read_stages(workdir)
  check_imported(stages[-1].config.get('modules', ()), str(workdir))
  evaluation = read_evaluation(workdir)
  images, written = {}, []
  drawn = list(_draw(stages, evaluation))
  for name, figure in progress.each(drawn, 'draw', len(drawn), 'picture'):
    images[name] = pictures.to_png(figure)
    written.append(output / f'{name}.png')
    files.write_bytes(written[-1], images[name])
  text = page(stages, missing, evaluation, images)
  written.append(output / 'index.html')
  files.write_text(written[-1], text)
  return written


def _draw(
  stages: Sequence[Stage], evaluation: Evaluation | None
) -> Iterator[tuple[str, Figure]]:
  """Yields (name, figure) for every picture with results."""
  logged = [stage for stage in stages if stage.curve('loss')[0].size]
  if logged:
    yield 'loss_curves', charts.loss_curves(logged)
  if evaluation is None:
    return
  metrics = evaluation.metrics
  if metrics.get('synthesis'):
    yield 'route_bars', charts.route_bars(metrics)
  if evaluation.questions:
    yield 'understanding', pictures.understanding_picture(evaluation.questions)
  for task, score in metrics.get('understanding', {}).items():
    if 'confusion' in score:
      picture = charts.confusion_picture(task, score['confusion'])
      yield f'confusion_{task}', picture
  if evaluation.panels:
    yield 'overview', pictures.overview(evaluation.panels)
  for name, panel in evaluation.panels.items():
    score = metrics['synthesis'][name]
    yield f'panels/{name}', pictures.route_panel(panel, score)


def tables(workdir: Path) -> Iterator[str]:
  """Yields the tables of a workdir's results as text."""
  evaluation = read_evaluation(workdir)
  metrics = evaluation.metrics if evaluation else {}
  if metrics.get('understanding'):
    yield understanding_table(metrics)
  if metrics.get('synthesis'):
    yield route_table(metrics)
