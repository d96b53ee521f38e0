"""Compares evaluated runs, arms x seeds, with bootstrap intervals.

  python -m synermedgen_jax.compare --runs=runs/ablations \\
      --study=projects/ablations/study.json

Reads ROOT/SEED/ARM/evaluation/subjects.json, which `evaluate` writes. Writes a
Markdown page and a PNG plot with the mean SSIM and accuracy of each arm, the
scores of volumes that --score added to its evaluation, 95 % intervals by
bootstrap over subjects, paired differences from the reference arm, baselines,
and published figures. Arms without an evaluation are listed as not run. Text
after the line `<!-- notes -->` is kept when the page is rewritten.
"""

import os
from pathlib import Path

from absl import flags

from synermedgen_jax.config.command_line import (
  define_modules_flag,
  local_path,
  run_command,
)
from synermedgen_jax.config.modules import import_modules
from synermedgen_jax.core import files
from synermedgen_jax.evaluation import comparison
from synermedgen_jax.evaluation.comparison import ComparisonError
from synermedgen_jax.evaluation.subjects import FILE
from synermedgen_jax.reporting import pictures
from synermedgen_jax.reporting.comparison_chart import comparison_chart
from synermedgen_jax.reporting.comparison_table import markdown
from synermedgen_jax.reporting.study import Study, read_study

_RUNS = flags.DEFINE_string(
  'runs', None, 'Folder ROOT of the workdirs ROOT/SEED/ARM.'
)
_STUDY = flags.DEFINE_string(
  'study',
  None,
  'JSON file with the titles and order of the arms, the reference arm and '
  'published figures. Default: all workdirs in alphabetical order.',
)
_ARMS = flags.DEFINE_list(
  'arms', [], 'Names of the arms to compare, in this order. Default: all.'
)
_REFERENCE = flags.DEFINE_string(
  'reference',
  None,
  'Name of the arm that differences are taken from. Default: that of --study.',
)
_OUTPUT = flags.DEFINE_string(
  'output', None, 'Page to write. Default: ROOT/comparison.md.'
)
_PLOT = flags.DEFINE_string(
  'plot', None, 'Plot to write. Default: the path of the page with suffix .png.'
)
_RESAMPLES = flags.DEFINE_integer(
  'resamples', 2000, 'Number of bootstrap resamples.', lower_bound=1
)
_MODULES = define_modules_flag()
NOTES = '<!-- notes -->'


def _compare() -> list[Path]:
  root = local_path('runs', _RUNS.value)
  study = read_study(Path(_STUDY.value)) if _STUDY.value else Study()
  reference = _REFERENCE.value or study.reference
  if not reference:
    raise ComparisonError(
      '--reference: name the arm that differences are taken from.'
    )
  names = _ARMS.value or list(study.arms) or _arms_in(root)
  arms = list(dict.fromkeys([*names, reference]))
  page = Path(_OUTPUT.value) if _OUTPUT.value else root / 'comparison.md'
  plot = Path(_PLOT.value) if _PLOT.value else page.with_suffix('.png')
  compared = comparison.compare(
    comparison.read_runs(root, arms),
    arms,
    reference=reference,
    resamples=_RESAMPLES.value,
  )
  if not compared.results:
    raise ComparisonError(
      f'{root}: the reference arm {reference!r} has no scores of routes or '
      'tasks; run synermedgen_jax.evaluate on it.'
    )
  text = markdown(compared, study, os.path.relpath(plot, page.parent))
  notes = f'{NOTES}\n'
  if page.is_file():
    _, mark, kept = page.read_text('utf-8').partition(NOTES)
    notes = mark + kept or notes
  files.write_bytes(plot, pictures.to_png(comparison_chart(compared, study)))
  files.write_text(page, f'{text}\n{notes}')
  print(text)
  return [page, plot]


def _arms_in(root: Path) -> list[str]:
  """Names of the arms with an evaluation."""
  parts = (path.relative_to(root).parts for path in root.glob(f'*/*/{FILE}'))
  return sorted({arm for _, arm, *_ in parts})


def main() -> None:
  import_modules(_MODULES.value)
  print('\n'.join(map(str, _compare())))


if __name__ == '__main__':
  run_command(main, required=['runs'])
