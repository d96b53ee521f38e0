"""Writes a report of a run: numbers, pictures, curves, settings.

  python -m synermedgen_jax.report --workdir=runs/demo/detail

Reads the results of training and `evaluate` in the workdir, and the training
curves of the stages that it started from. Writes WORKDIR/report/index.html, one
file with embedded pictures, and the pictures as PNG files. For a part without
results, the page shows the command that computes it. Prints the tables and the
paths of the files.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from absl import flags
from matplotlib.figure import Figure
from tqdm import tqdm

from synermedgen_jax.config.command_line import (
  define_modules_flag,
  local_path,
  run_command,
)
from synermedgen_jax.config.modules import check_imported, import_modules
from synermedgen_jax.core import files
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

_WORKDIR = flags.DEFINE_string('workdir', None, 'Workdir of a trained stage.')
_OUTPUT = flags.DEFINE_string(
  'output', None, 'Folder for the report. Default: WORKDIR/report.'
)
_MODULES = define_modules_flag()


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
  for name, figure in tqdm(
    _draw(stages, evaluation), desc='draw', unit='picture'
  ):
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


def _tables(evaluation: Evaluation | None) -> Iterator[str]:
  """Yields the tables as text."""
  metrics = evaluation.metrics if evaluation else {}
  if metrics.get('understanding'):
    yield understanding_table(metrics)
  if metrics.get('synthesis'):
    yield route_table(metrics)


def main() -> None:
  import_modules(_MODULES.value)
  workdir = local_path('workdir', _WORKDIR.value)
  output = Path(_OUTPUT.value) if _OUTPUT.value else workdir / 'report'
  written = report(workdir, output)
  for table in _tables(read_evaluation(workdir)):
    print(f'{table}\n')
  print('\n'.join(map(str, written)))


if __name__ == '__main__':
  run_command(main, required=['workdir'])
