"""The tables of an arena, as Markdown and as JSON."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from synermedgen_jax.core.modalities import Modality, route_named
from synermedgen_jax.evaluation.standings import Standing
from synermedgen_jax.planning.arena import Training

_BASELINES = {
  'copy_source': 'copy of the source',
  'mean_target': 'mean target of the training subjects',
}
_DEFINITIONS = (
  '* SSIM, PSNR and MAE are those of `evaluate`: 2-D, in the body mask, both '
  "images clipped to the target's window; mean over the body of a subject, "
  'over subjects, and over routes. MAE is averaged over the routes to CT.',
  '* Intervals: 95 %, bootstrap over subjects; differences are paired. With '
  'few subjects they are too narrow; the only subject of a dataset has none. '
  'They leave out the spread of seeds, whose lowest and highest mean SSIM '
  'follow their number.',
  '* The ceiling is the SSIM of the truth through the autoencoder and the '
  'codes of a system, or through its size of images: what it reaches with '
  'perfect latents or codes.',
  '* A system leads on a route if it has the highest mean SSIM of all '
  'systems, whatever the interval of the difference.',
  '* Parameters, pairs and operations are those of one seed, of all its stages '
  'and pairs of modalities together; two operations per multiplication and '
  'addition. SynerMedGen sees further slices in Stage I. What made the weights '
  "that it starts from, and BBDM's autoencoder, is not counted.",
  '* Operations of a slice are those of its synthesis, all attention '
  'counted. Seconds per slice are those of batches of 16, on the machine '
  'that wrote this page.',
)


@dataclasses.dataclass(frozen=True)
class Entry:
  """Facts of a system, beside its scores.

  Attributes:
    system: its name.
    title: its name in tables.
    scope: what one training serves: 'route', 'pair' or 'all'.
    paired: it learns from pairs of one subject.
    departures: differences from the published program.
    trained, used: parameters, of all trainings of a seed together.
    images: pairs of slices that it translates in training.
    operations: of training.
    steps: folder of each training -> its steps.
    slice_operations: of the synthesis of one slice.
    seconds: per slice, of synthesis in batches.
  """

  system: str
  title: str
  scope: str
  paired: bool
  departures: Sequence[str]
  trained: int
  used: int
  images: float
  operations: float
  steps: Mapping[str, int]
  slice_operations: float
  seconds: float


def costs(
  candidates: Sequence[tuple[str, Path, Sequence[Training]]], rate: float
) -> str:
  """What the trainings will cost, before they start.

  Args:
    candidates: (system, folder, trainings).
    rate: operations per second, for the estimate of the time.
  """
  rows = [('system', 'folder', 'runs', 'steps', 'pairs', 'TFLOP', 'hours')]
  for system, folder, parts in candidates:
    operations = sum(t.operations for t in parts)
    rows.append(
      (
        system,
        str(folder),
        str(len(parts)),
        f'{sum(t.steps for t in parts):,}',
        f'{sum(t.images for t in parts):,.0f}',
        f'{operations / 1e12:.1f}',
        f'{operations / rate / 3600:.2f}',
      )
    )
  each = {t.workdir: t.operations for _, _, parts in candidates for t in parts}
  total = sum(each.values())
  rows.append(
    ('total', *[''] * 4, f'{total / 1e12:.1f}', f'{total / rate / 3600:.2f}')
  )
  return (
    _aligned(rows)
    + f'\nHours are those of training at {rate / 1e9:.0f} GFLOP/s. The total '
    'counts a stage that systems share once.'
  )


def _aligned(rows: Sequence[Sequence[str]]) -> str:
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  return '\n'.join(
    '  '.join(
      cell.ljust(width) if i < 2 else cell.rjust(width)
      for i, (cell, width) in enumerate(zip(row, widths, strict=True))
    ).rstrip()
    for row in rows
  )


def markdown(
  table: Mapping[str, Standing],
  entries: Mapping[str, Entry],
  settings: Mapping[str, Any],
) -> str:
  """The page with both tables and the definitions.

  Args:
    table: system -> standing, best first; with the trivial baselines.
    entries: facts of the trained systems.
    settings: budget, slices, split, subjects and reference.
  """
  reference = _title(settings['reference'], entries)
  routes = next(iter(table.values())).routes
  parts = [
    '# Arena\n',
    f'{_counted(len(routes), "route")}, '
    f'{_counted(settings["subjects"], "subject")} of split '
    f'`{settings["split"]}`, slices per case: {settings["slices"]}; budget '
    f'{settings["budget"]}. Written by '
    '`python -m synermedgen_jax.arena`.\n',
    '## Systems\n',
    _rows(
      [
        (
          *('rank', 'system', 'SSIM (95 %)'),
          f'difference from {reference} (95 %)',
          *('seeds', 'ceiling', 'routes led', 'PSNR, dB', 'MAE to CT, HU'),
          *('scope', 'data', 'parameters trained / used', 'pairs seen'),
          *('TFLOP', 'GFLOP / slice', 's / slice'),
        ),
        *(_system(name, s, entries.get(name)) for name, s in table.items()),
      ]
    ),
    '## SSIM by route\n',
    _rows(
      [
        ('route', *(_title(name, entries) for name in table)),
        *(
          (route, *(_best(route, name, table) for name in table))
          for route in routes
        ),
      ]
    ),
    '## Departures from the published programs\n',
    *(
      f'* **{entry.title}**: {"; ".join(entry.departures)}.'
      for entry in entries.values()
      if entry.departures
    ),
    '\n## Definitions\n',
    *_DEFINITIONS,
  ]
  return '\n'.join(parts) + '\n'


def _counted(number: int, noun: str) -> str:
  return f'{number} {noun}' + ('' if number == 1 else 's')


def _mae_to_ct(s: Standing) -> float | None:
  """Mean absolute error in HU over the routes to CT; None without one."""
  to_ct = [
    scores['mae']
    for route, scores in s.routes.items()
    if route_named(route).target is Modality.CT
  ]
  return sum(to_ct) / len(to_ct) if to_ct else None


def _system(name: str, s: Standing, entry: Entry | None) -> tuple[str, ...]:
  def interval(low, high, template):
    return '' if math.isnan(low) else f' ({template})'.format(low, high)

  mae = _mae_to_ct(s)
  cells = (
    str(s.rank),
    entry.title if entry else _BASELINES[name],
    f'{s.scores["ssim"]:.3f}' + interval(*s.interval, '{:.3f}–{:.3f}'),
    '–'
    if s.difference is None
    else f'{s.difference[0]:+.3f}'
    + interval(*s.difference[1:], '{:+.3f} to {:+.3f}'),
    _seeds(s),
    '–' if s.ceiling is None else f'{s.ceiling:.3f}',
    str(s.leads),
    f'{s.scores["psnr"]:.1f}',
    '–' if mae is None else f'{mae:.0f}',
  )
  if entry is None:
    return (*cells, *['–'] * 7)
  return (
    *cells,
    entry.scope,
    'paired' if entry.paired else 'unpaired',
    f'{entry.trained / 1e6:.2f} M / {entry.used / 1e6:.2f} M',
    f'{entry.images:,.0f}',
    f'{entry.operations / 1e12:.1f}',
    f'{entry.slice_operations / 1e9:.3g}',
    f'{entry.seconds:.3f}',
  )


def _seeds(s: Standing) -> str:
  """Their number, with the lowest and the highest mean SSIM of several."""
  if len(s.seeds) < 2:
    return str(len(s.seeds) or '–')
  ssim = s.seeds.values()
  return f'{len(ssim)} ({min(ssim):.3f}–{max(ssim):.3f})'


def _best(route: str, name: str, table: Mapping[str, Standing]) -> str:
  """The SSIM of a system on a route, bold if no system has a higher one."""
  value = table[name].routes[route]['ssim']
  best = max(s.routes[route]['ssim'] for s in table.values())
  return f'**{value:.3f}**' if value >= best else f'{value:.3f}'


def _title(name: str, entries: Mapping[str, Entry]) -> str:
  return entries[name].title if name in entries else _BASELINES[name]


def _rows(rows: Sequence[Sequence[str]]) -> str:
  head, *body = rows
  lines = [head, ['---'] * len(head), *body]
  return '\n'.join(f'| {" | ".join(line)} |' for line in lines) + '\n'


def record(
  table: Mapping[str, Standing],
  entries: Mapping[str, Entry],
  settings: Mapping[str, Any],
) -> dict[str, Any]:
  """The content of arena.json."""

  def system(name: str, standing: Standing) -> dict[str, Any]:
    values = dataclasses.asdict(standing)
    if math.isnan(standing.interval[0]):  # JSON has no NaN
      values['interval'] = None
      if standing.difference:
        values['difference'] = [standing.difference[0], None, None]
    # A mean of HU, SUV and arbitrary units is none of them.
    del values['scores']['mae']
    values['scores']['mae_to_ct'] = _mae_to_ct(standing)
    if name in entries:
      values['facts'] = dataclasses.asdict(entries[name])
    return values

  return {
    'settings': dict(settings),
    'systems': {name: system(name, s) for name, s in table.items()},
  }
