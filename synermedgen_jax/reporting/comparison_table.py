"""A comparison of arms as Markdown."""

from __future__ import annotations

from collections.abc import Iterator

from projects.ablations.arms import ARMS
from synermedgen_jax.evaluation.comparison import Comparison, Estimate, Result
from synermedgen_jax.evaluation.lines import Arm, Line, comparison_lines

_FEW = 4  # subjects of a dataset
NOT_KNOWN = 'not known here'
_BASELINES = {
  'copy_source': 'the source as it is',
  'mean_target': 'mean target of the training subjects',
  'ceiling': 'ceiling: the truth through the autoencoder',
  'chance': 'chance',
}


def arm_of(name: str) -> Arm:
  """What is known of an arm; one that is not, by its name."""
  return ARMS.get(name, Arm(name))


def markdown(comparison: Comparison, plot: str) -> str:
  """Overview, plot, a table per line, and what every number is.

  Args:
    comparison: of the runs.
    plot: path of the picture, relative to the page.
  """
  parts = [
    '# Ablations\n',
    'Written by `python -m synermedgen_jax.compare`; '
    '`projects/ablations/run.sh` runs it all. Digital phantoms, held-out '
    'subjects: the numbers say what this code does on them, and nothing about '
    'patients. Beside them stands what the paper reports on real data, at '
    'another size; only the direction of a difference can be compared.\n',
    _what_ran(comparison),
    '## Overview\n',
    'Means over seeds and subjects, x 100.\n',
    _markdown_rows(list(_overview(comparison))),
    f'![All arms by all numbers, with 95 % intervals]({plot})\n',
  ]
  for line in comparison_lines():
    if line.name in comparison.results:
      parts.append(f'## {_title(comparison, line)}\n')
      parts.append(_markdown_rows(list(_rows(comparison, line))))
  parts.append('## What the numbers are\n')
  parts.append('\n'.join(f'* {text}' for text in _definitions(comparison)))
  return '\n'.join(parts) + '\n'


def _title(comparison: Comparison, line: Line) -> str:
  """'SSIM, 22 routes', and how many of them there were if not all."""
  count = comparison.routes[line.name]
  if not line.routes or count == len(line.routes):
    return line.title
  return f'{line.title} ({count} of them scored)'


def _what_ran(comparison: Comparison) -> str:
  subjects = ', '.join(f'{n} {d}' for d, n in comparison.subjects.items())
  count = sum(comparison.subjects.values())
  lines = [
    f'{count} subjects of split `{comparison.settings.get("split")}` '
    f'({subjects}); the reference is "{arm_of(comparison.reference).title}".\n'
  ]
  few = [d for d, n in comparison.subjects.items() if n < _FEW]
  if few:
    lines.append(
      f'**Few subjects** of {", ".join(few)}: the intervals below are too '
      'narrow, down to nothing where there is one subject.\n'
    )
  missing = [a for a in comparison.arms if a not in comparison.seeds]
  if missing:
    titles = '; '.join(f'{arm_of(a).title} (`{a}`)' for a in missing)
    lines.append(f'**Not run:** {titles}.\n')
  wanted = {seed for seeds in comparison.seeds.values() for seed in seeds}
  for arm, seeds in comparison.seeds.items():
    if lacking := sorted(wanted - set(seeds)):
      lines.append(
        f'**Seeds missing** of {arm_of(arm).title} (`{arm}`): '
        f'{", ".join(lacking)}.\n'
      )
  return '\n'.join(lines)


def _overview(comparison: Comparison) -> Iterator[list[str]]:
  lines = [
    line for line in comparison_lines() if line.name in comparison.results
  ]
  yield ['arm', *(_title(comparison, line) for line in lines), 'seeds']
  for arm in comparison.arms:
    cells = []
    for line in lines:
      result = comparison.results[line.name].get(arm)
      cells.append(f'{result.estimate.value:.1f}' if result else '–')
    seeds = comparison.seeds.get(arm, ())
    yield [
      arm_of(arm).title,
      *cells,
      str(len(seeds)) if seeds else 'not run',
    ]
  names = {n for found in comparison.baselines.values() for n in found}
  for name in (n for n in _BASELINES if n in names):
    found = [comparison.baselines[line.name].get(name) for line in lines]
    cells = [f'{e.value:.1f}' if e else '–' for e in found]
    yield [f'*{_BASELINES[name]}*', *cells, '']


def _rows(comparison: Comparison, line: Line) -> Iterator[list[str]]:
  reference = arm_of(comparison.reference).title
  yield ['arm', 'mean [95 %]', f'less {reference} [95 %]', 'paper', 'seeds']
  results = comparison.results[line.name]
  for arm in comparison.arms:
    paper = arm_of(arm).paper.get(line.name)
    said = NOT_KNOWN if paper is None else f'{paper:g}'
    result = results.get(arm)
    if result is None:
      missing = 'not measured' if arm in comparison.seeds else 'not run'
      yield [arm_of(arm).title, missing, '', said, '']
      continue
    yield [
      arm_of(arm).title,
      _with_interval(result.estimate),
      _difference(result),
      said,
      _seeds(result),
    ]
  for name, estimate in comparison.baselines[line.name].items():
    value = f'{estimate.value:.1f}'
    if name != 'chance':
      value = _with_interval(estimate)
    yield [f'*{_BASELINES[name]}*', value, '', '', '']


def _with_interval(estimate: Estimate, sign: str = '') -> str:
  value, low, high = (
    f'{round(x, 1) + 0.0:{sign}.1f}'.replace('-', '−')  # no −0.0
    for x in (estimate.value, estimate.low, estimate.high)
  )
  return f'{value} [{low}, {high}]'


def _difference(result: Result) -> str:
  if result.difference is None:
    return 'reference'
  return _with_interval(result.difference, '+')


def _seeds(result: Result) -> str:
  """How many, and each one's number."""
  values = ', '.join(f'{value:.1f}' for value in result.seeds.values())
  return f'{len(result.seeds)}: {values}'


def _definitions(comparison: Comparison) -> Iterator[str]:
  for line in comparison_lines():
    if line.name in comparison.results:
      yield f'**{line.title}**: {line.definition}'
  yield (
    '**Mean**: seeds are averaged within a subject first. **[95 %]**: '
    f'percentiles of {comparison.resamples} bootstrap resamples of subjects, '
    'as many from each dataset as there are, the same resample for all arms '
    'and routes, so differences are paired. The interval says how the number '
    'would move with other subjects; how it moves with other training seeds '
    'stands in the column of seeds, one number each, and is not in the '
    'interval. With few subjects such intervals are somewhat narrow.'
  )
  yield (
    '**Baselines** are of the runs of the reference: the source itself; the '
    'mean image of the training subjects at that height; the truth through '
    'the autoencoder and back. **Chance** of MI is the share of the most '
    'frequent modality among the panels asked.'
  )
  yield (
    f'**Paper**: SynerMedGen, ICML 2026, arXiv 2605.08724. "{NOT_KNOWN}": the '
    'table of ablations in the paper is not at hand; of it only the figures '
    'above are known.'
  )
  asked = comparison.settings
  yield (
    f'**Asked**: up to {asked.get("questions")} questions a task, '
    f'{asked.get("slices") or "all usable"} slices a case, seed '
    f'{asked.get("seed")} of the questions and of the noise.'
  )


def _markdown_rows(rows: list[list[str]]) -> str:
  """Rows of cells as a Markdown table, the first one its head."""
  head, *body = rows
  lines = [head, ['---'] * len(head), *body]
  return ''.join(f'| {" | ".join(cells)} |\n' for cells in lines)
