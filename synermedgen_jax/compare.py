"""Puts evaluated runs, arms x seeds, beside one another.

  python -m synermedgen_jax.compare --runs=runs/ablations

Reads ROOT/SEED/ARM/evaluation/subjects.json, as `projects/ablations/run.sh` and
`evaluate` leave them, and writes a Markdown page and a PNG plot: mean SSIM and
accuracy per arm, with 95 % intervals by bootstrap over subjects, the paired
difference to the reference arm, baselines, and what the paper reports. An arm
without an evaluation is said to be missing. What stands in the page after the
line `<!-- notes -->` is kept when the page is written again.
"""

import os
from pathlib import Path

from absl import flags

from projects.ablations.arms import ARMS, REFERENCE
from synermedgen_jax.config.command_line import run_command
from synermedgen_jax.evaluation import comparison
from synermedgen_jax.evaluation.comparison import ComparisonError
from synermedgen_jax.reporting import pictures
from synermedgen_jax.reporting.comparison_chart import comparison_chart
from synermedgen_jax.reporting.comparison_table import markdown

_RUNS = flags.DEFINE_string('runs', None, 'ROOT of SEED/ARM workdirs.')
_ARMS = flags.DEFINE_list(
  'arms', list(ARMS), 'Names of workdirs, in the order of the table.'
)
_REFERENCE = flags.DEFINE_string(
  'reference', REFERENCE, 'The arm that differences are to.'
)
_OUTPUT = flags.DEFINE_string('output', 'docs/ablations.md', 'The page.')
_PLOT = flags.DEFINE_string(
  'plot', None, "The plot; the page's path ending in .png by default."
)
_RESAMPLES = flags.DEFINE_integer(
  'resamples', 2000, 'Of the bootstrap.', lower_bound=1
)
NOTES = '<!-- notes -->'


def _compare() -> list[Path]:
  arms = list(dict.fromkeys([*_ARMS.value, _REFERENCE.value]))
  page = Path(_OUTPUT.value)
  plot = Path(_PLOT.value) if _PLOT.value else page.with_suffix('.png')
  runs = comparison.read_runs(Path(_RUNS.value), arms)
  found = comparison.compare(
    runs, arms, reference=_REFERENCE.value, resamples=_RESAMPLES.value
  )
  if not found.results:
    raise ComparisonError(
      f'{_RUNS.value}: the reference arm {_REFERENCE.value!r} measured neither '
      'a route nor a task.'
    )
  text = markdown(found, os.path.relpath(plot, page.parent))
  notes = f'{NOTES}\n'
  if page.is_file():
    _, mark, kept = page.read_text().partition(NOTES)
    notes = mark + kept or notes
  _write(plot, pictures.to_png(comparison_chart(found)))
  _write(page, f'{text}\n{notes}'.encode())
  print(text)
  return [page, plot]


def _write(path: Path, content: bytes) -> None:
  """Writes under another name first, so that no half file is ever seen."""
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(f'.{path.name}.partial')
  partial.write_bytes(content)
  os.replace(partial, path)


def main() -> None:
  print('\n'.join(map(str, _compare())))


if __name__ == '__main__':
  run_command(main, required=['runs'])
