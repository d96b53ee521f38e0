"""Formats a comparison of arms as Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterator

from synermedgen_jax.evaluation.comparison import Comparison, Estimate, Result
from synermedgen_jax.evaluation.lines import Line, comparison_lines
from synermedgen_jax.reporting.study import Study

_FEW = 4  # datasets with fewer subjects get a warning
_BASELINES = {
  'copy_source': 'copy of the source',
  'mean_target': 'mean target of the training subjects',
  'ceiling': 'ceiling: the truth through the autoencoder',
  'chance': 'chance',
}


def markdown(comparison: Comparison, study: Study, plot: str) -> str:
  """Returns a page: overview, plot, one table per line, definitions.

  Args:
    comparison: results of `compare`.
    study: titles and texts.
    plot: path of the plot, relative to the page.
  """
  parts = [
    f'# {study.title}\n',
    f'{study.about} Written by `python -m synermedgen_jax.compare`.'.lstrip()
    + '\n',
    _what_ran(comparison, study),
    '## Overview\n',
    'Means over seeds and subjects.\n',
    markdown_rows(list(_overview(comparison, study))),
    f'![All arms by all numbers, with 95 % intervals]({plot})\n',
  ]
  for line in comparison_lines():
    if line.name in comparison.results:
      parts.append(f'## {_title(comparison, line)}\n')
      parts.append(markdown_rows(list(_rows(comparison, study, line))))
  parts.append('## Definitions\n')
  texts = _definitions(comparison, study)
  parts.append('\n'.join(f'* {text}' for text in texts))
  return '\n'.join(parts) + '\n'


def _title(comparison: Comparison, line: Line) -> str:
  """Title of a line, with the number of scored routes if some are missing."""
  count = comparison.routes[line.name]
  if not line.routes or count == len(line.routes):
    return line.title
  return f'{line.title} ({count} of them scored)'


def _what_ran(comparison: Comparison, study: Study) -> str:
  subjects = ', '.join(f'{n} {d}' for d, n in comparison.subjects.items())
  count = sum(comparison.subjects.values())
  lines = [
    f'{count} subjects of split `{comparison.settings.get("split")}` '
    f'({subjects}); the reference is '
    f'"{study.arm(comparison.reference).title}".\n'
  ]
  few = [d for d, n in comparison.subjects.items() if n < _FEW]
  if few:
    lines.append(
      f'**Few subjects** of {", ".join(few)}: the intervals below are too '
      'narrow. A number with the only subject of a dataset has none.\n'
    )
  missing = [a for a in comparison.arms if a not in comparison.seeds]
  if missing:
    titles = '; '.join(f'{study.arm(a).title} (`{a}`)' for a in missing)
    lines.append(f'**Not run:** {titles}.\n')
  every_seed = {seed for seeds in comparison.seeds.values() for seed in seeds}
  for arm, seeds in comparison.seeds.items():
    if lacking := sorted(every_seed - set(seeds)):
      lines.append(
        f'**Seeds missing** of {study.arm(arm).title} (`{arm}`): '
        f'{", ".join(lacking)}.\n'
      )
  return '\n'.join(lines)


def _overview(comparison: Comparison, study: Study) -> Iterator[list[str]]:
  lines = [
    line for line in comparison_lines() if line.name in comparison.results
  ]
  titles = (f'{_title(comparison, line)}, {line.unit}' for line in lines)
  yield ['arm', *titles, 'seeds']
  for arm in comparison.arms:
    cells = []
    for line in lines:
      result = comparison.results[line.name].get(arm)
      cells.append(_value(result.estimate, line) if result else '–')
    seeds = comparison.seeds.get(arm, ())
    yield [
      study.arm(arm).title,
      *cells,
      str(len(seeds)) if seeds else 'not run',
    ]
  names = {n for line in comparison.baselines.values() for n in line}
  for name in (n for n in _BASELINES if n in names):
    estimates = [comparison.baselines[line.name].get(name) for line in lines]
    cells = [
      _value(e, line) if e else '–'
      for e, line in zip(estimates, lines, strict=True)
    ]
    yield [f'*{_BASELINES[name]}*', *cells, '']


def _rows(
  comparison: Comparison, study: Study, line: Line
) -> Iterator[list[str]]:
  reference = study.arm(comparison.reference).title
  mean = f'mean, {line.unit} [95 %]'
  columns = ['arm', mean, f'minus {reference} [95 %]', 'seeds']
  yield [*columns, 'published'] if study.has_published else columns
  for cells in _cells(comparison, study, line):
    yield cells if study.has_published else cells[:-1]


def _cells(
  comparison: Comparison, study: Study, line: Line
) -> Iterator[list[str]]:
  results = comparison.results[line.name]
  for arm in comparison.arms:
    figure = study.arm(arm).published.get(line.name)
    published = '–' if figure is None else f'{figure:g}'
    result = results.get(arm)
    if result is None:
      missing = 'not measured' if arm in comparison.seeds else 'not run'
      yield [study.arm(arm).title, missing, '', '', published]
      continue
    yield [
      study.arm(arm).title,
      with_interval(result.estimate, line.decimals),
      _difference(result, line),
      _seeds(result, line),
      published,
    ]
  for name, estimate in comparison.baselines[line.name].items():
    value = _value(estimate, line)
    if name != 'chance':
      value = with_interval(estimate, line.decimals)
    yield [f'*{_BASELINES[name]}*', value, '', '', '']


def _value(estimate: Estimate, line: Line) -> str:
  return f'{estimate.value:.{line.decimals}f}'


def with_interval(estimate: Estimate, decimals: int, sign: str = '') -> str:
  """An estimate as text, such as '67.9 [66.1, 69.5]'; '67.9' without interval.

  Args:
    estimate: the number and its interval.
    decimals: their number.
    sign: '+' shows the sign of positive numbers.
  """
  value, low, high = (
    f'{round(x, decimals) + 0.0:{sign}.{decimals}f}'.replace('-', '−')  # no −0
    for x in (estimate.value, estimate.low, estimate.high)
  )
  return value if math.isnan(estimate.low) else f'{value} [{low}, {high}]'


def _difference(result: Result, line: Line) -> str:
  if result.difference is None:
    return 'reference'
  return with_interval(result.difference, line.decimals, '+')


def _seeds(result: Result, line: Line) -> str:
  """The number of seeds and their values."""
  values = ', '.join(
    f'{value:.{line.decimals}f}' for value in result.seeds.values()
  )
  return f'{len(result.seeds)}: {values}'


def _definitions(comparison: Comparison, study: Study) -> Iterator[str]:
  for line in comparison_lines():
    if line.name in comparison.results:
      yield f'**{line.title}**: {line.definition}'
  yield (
    '**Mean**: over seeds within each subject, then over subjects. **[95 %]**: '
    f'percentiles over {comparison.resamples} bootstrap resamples, each '
    'of one subject less than a dataset has. All arms and routes '
    'share the resamples, so differences are paired. The interval covers the '
    'choice of subjects, not that of training seeds; the column of seeds lists '
    'their values. With few subjects, such intervals are somewhat too narrow.'
  )
  yield (
    '**Baselines** are those of the reference runs: the source itself, or the '
    'mean of several; the mean image of the training subjects at the same '
    'relative position; the truth through the autoencoder. **Chance** for MI '
    'is the share of the most frequent modality among all panels.'
  )
  if study.has_published:
    yield f'**Published**: {study.published} "–": no figure.'
  asked = comparison.settings
  yield (
    f'**Measured on** up to {asked.get("questions", 0)} questions per task and '
    f'{asked.get("slices") or "all usable"} slices per case; random seed '
    f'{asked.get("seed", "none")} of question sampling and diffusion noise.'
  )


def markdown_rows(rows: list[list[str]]) -> str:
  """Formats rows of cells as a Markdown table; the first is the header."""
  head, *body = rows
  lines = [head, ['---'] * len(head), *body]
  return ''.join(f'| {" | ".join(cells)} |\n' for cells in lines)
