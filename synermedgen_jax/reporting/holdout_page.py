"""The page of holdouts: a table per number, a picture and a plot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from synermedgen_jax.core import files
from synermedgen_jax.evaluation import holdouts
from synermedgen_jax.evaluation.comparison import Estimate
from synermedgen_jax.evaluation.holdouts import COPY, Cell, Results, Row
from synermedgen_jax.evaluation.subjects import Subjects
from synermedgen_jax.phantoms.shifts import NONE, SHIFTS
from synermedgen_jax.reporting import pictures
from synermedgen_jax.reporting.comparison_table import (
  markdown_rows,
  with_interval,
)
from synermedgen_jax.reporting.holdout_figures import (
  holdout_chart,
  holdout_picture,
)
from synermedgen_jax.reporting.run_comparison import notes_of

SSIM = 'SSIM'
_COPY_TITLE = '*copy of the source*'


def write_page(
  root: Path, page: Path, *, systems: Sequence[str], resamples: int
) -> str:
  """Writes the page and two figures beside it; notes in the page are kept.

  Args:
    root: folder of the results, ROOT/HOLDOUT/SYSTEM/evaluation.
    page: Markdown file to write; the figures have its name and .png.
    systems: names of the systems in order; empty = all.
    resamples: number of bootstrap resamples.

  Returns:
    The page, without the notes.

  Raises:
    ComparisonError: there are no results, or they cannot be compared.
    ResultError: a file is malformed.
  """
  results = holdouts.read_results(root, systems)
  rows = holdouts.synthesis_rows(results, resamples=resamples)
  tables = {SSIM: rows} if rows else {}
  for task in holdouts.asked(results):
    tables[task] = holdouts.task_rows(results, task, resamples=resamples)
  chart = page.with_name(f'{page.stem}_change.png')
  picture = page.with_name(f'{page.stem}_slices.png')
  figure = holdout_picture(root, results)
  text = '\n'.join(
    [
      *_head(results),
      f'![Change of every number with its 95 % interval]({chart.name})\n',
      *([f'![One slice of every holdout]({picture.name})\n'] if figure else []),
      *_tables(results, tables),
      '## Definitions\n',
      *(f'* {line}' for line in _definitions(results, tables, resamples)),
      '',
    ]
  )
  notes = notes_of(page)
  files.write_bytes(chart, pictures.to_png(holdout_chart(tables)))
  if figure:
    files.write_bytes(picture, pictures.to_png(figure))
  files.write_text(page, f'{text}\n{notes}')
  return text


def _head(results: Results) -> Iterator[str]:
  yield '# Holdouts\n'
  paired = NONE in results
  yield (
    'Results of each system on subjects that no training has seen. '
    + (
      'The holdouts show the same subjects; **minus none** is the paired '
      'difference from the scanners of the training set. '
      if paired
      else ''
    )
    + 'Written by `python -m synermedgen_jax.holdout`.\n'
  )
  rows = [['holdout', 'what differs', 'subjects']]
  for holdout, runs in results.items():
    counts: dict[str, int] = {}
    for dataset in next(iter(runs.values())).subjects.values():
      counts[dataset] = counts.get(dataset, 0) + 1
    title = SHIFTS[holdout].title if holdout in SHIFTS else 'other data'
    subjects = ', '.join(f'{n} {d}' for d, n in sorted(counts.items()))
    rows.append([f'`{holdout}`', title, subjects])
  yield markdown_rows(rows)


def _tables(
  results: Results, tables: Mapping[str, Sequence[Row]]
) -> Iterator[str]:
  systems = list(dict.fromkeys(s for runs in results.values() for s in runs))
  for name, rows in tables.items():
    yield f'## {name.upper()}{"" if name == SSIM else ", accuracy"}\n'
    columns = [
      system
      for system in (*systems, COPY)
      if any(system in row.cells for row in rows)
    ]
    titles = [_COPY_TITLE if c == COPY else c for c in columns]
    chance = [] if name == SSIM else ['chance']
    lines = [['holdout', 'routes', *titles, *chance]]
    for row in rows:
      routes = f'{row.group.title} ({len(row.group.routes)})'
      cells = [_cell(row.cells.get(column)) for column in columns]
      if chance:
        cells.append(_chance(results[row.holdout], name))
      lines.append([f'`{row.holdout}`', routes, *cells])
    yield markdown_rows(lines)


def _chance(runs: Mapping[str, Subjects], task: str) -> str:
  asked = next(run for run in runs.values() if task in run.understanding)
  return f'{100 * asked.understanding[task]["chance"]:.1f}'


def _cell(cell: Cell | None) -> str:
  """'81.2 [80.1, 82.0]; minus none −3.2 [−3.9, −2.6]', as two lines."""
  if cell is None:
    return 'not measured'
  if cell.subjects == 1:
    return f'{cell.value.value:.1f}, one subject'
  parts = [with_interval(cell.value, 1)]
  if cell.difference:
    parts.append(f'minus none {_signed(cell.difference)}')
  return '<br>'.join(parts)


def _signed(estimate: Estimate) -> str:
  bold = '**' if estimate.low > 0 or estimate.high < 0 else ''
  return f'{bold}{with_interval(estimate, 1, "+")}{bold}'


def _definitions(
  results: Results, tables: Mapping[str, Sequence[Row]], resamples: int
) -> Iterator[str]:
  yield (
    '**SSIM** x 100 within the body mask (2-D, Gaussian window of sigma 1.5, '
    "both images clipped to the target's window): mean over the body of a "
    'subject, then over subjects, then over the routes of the line.'
  )
  if len(tables) > 1:
    yield (
      '**Accuracy** x 100 of the questions about the routes of the line; MI, '
      'whose questions have no route, counts the panels of their subjects. '
      '**Chance** is that of all questions of the holdout; for MI, the share '
      'of the most frequent modality.'
    )
  if any(holdout in SHIFTS for holdout in results):
    yield (
      '**Routes**: all are those whose source or target the shift changes, on '
      '`none` all. Where the truth stays, only the source changes, and a loss '
      "is the system's. Where the truth changes too, as by noise in it, a "
      'part of the loss is no fault of the system. On misregistered volumes, a '
      'synthesis that follows its source lies beside the truth.'
    )
  yield (
    f'**[low, high]**: 95 % interval, percentiles over {resamples} bootstrap '
    'resamples, each of one subject less than a dataset has; systems, holdouts '
    'and routes share the resamples. Bold: the interval of the difference is '
    'on one side of zero. With few subjects, such intervals are too narrow; '
    'the only subject of a dataset has none.'
  )
  yield '**Not measured**: the system was not trained for it.'
  run = next(iter(next(iter(results.values())).values()))
  yield (
    f'**Measured on** {run.settings["slices"] or "all usable"} slices of each '
    f'case, split `{run.settings["split"]}`; random seed '
    f'{run.settings.get("seed", "none")}.'
  )
