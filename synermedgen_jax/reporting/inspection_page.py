"""Results of `prepare --check` as text and as one HTML page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from synermedgen_jax.core.modalities import Modality
from synermedgen_jax.reporting.drawings import to_svg
from synermedgen_jax.reporting.page_tables import Table
from synermedgen_jax.reporting.pictures import STYLE
from synermedgen_jax.reporting.rendering import render
from synermedgen_jax.slices.inspection import CaseFacts, VolumeFacts

_SHOWN = 10  # cases with pictures
_SQUARES = 8  # along each side of the checkerboard
_HEAD = (
  'case',
  'modality',
  'shape',
  'spacing, mm',
  'axes',
  'values',
  '1 to 99 %',
  'grid',
  'offset',
  'read as',
)


def worst_first(cases: Sequence[CaseFacts]) -> list[CaseFacts]:
  """Sorts by number of problems, of notes, and by offset, largest first."""

  def key(case: CaseFacts):
    return -len(case.problems), -len(case.notes), -case.distance, case.id

  return sorted(cases, key=key)


def summary(cases: Sequence[CaseFacts]) -> str:
  """One line per problem and note, and a line with the number of cases."""
  bad = [case for case in cases if case.problems]
  lines = [f'{c.id}: {p}' for c in worst_first(bad) for p in c.problems]
  lines += [f'{c.id}: note: {n}' for c in worst_first(cases) for n in c.notes]
  slices = sum(case.usable for case in cases)
  lines.append(
    f'{len(cases)} cases, {len(bad)} of them with problems; '
    f'{slices} usable slices.'
  )
  return '\n'.join(lines)


def inspection_page(cases: Sequence[CaseFacts], most_offset: float) -> str:
  """An HTML page of problems, pictures of the worst cases, and all files.

  Args:
    cases: results of the check.
    most_offset: offset in mm above which a volume counts as misaligned.
  """
  ordered = worst_first(cases)
  shown = [case for case in ordered if case.pictures][:_SHOWN]
  return render(
    'inspection.html',
    count=len(cases),
    most_offset=f'{most_offset:g}',
    bad={c.id: c.problems for c in ordered if c.problems},
    doubtful={c.id: c.notes for c in ordered if c.notes},
    pictures=[(c.id, to_svg(_slices(c), f'slices of {c.id}')) for c in shown],
    files=Table(_HEAD, [*_rows(ordered)], left=range(len(_HEAD))),
  )


@mpl.rc_context(STYLE)
def _slices(case: CaseFacts) -> Figure:
  """Draws the modalities side by side, then a checkerboard of two of them."""
  images = list(case.pictures.items())
  count = len(images) + (len(images) > 1)
  figure = Figure(figsize=(2.1 * count, 2.3), layout='constrained')
  axes = figure.subplots(1, count, squeeze=False)[0]
  for ax, (modality, image) in zip(axes, images, strict=False):
    ax.imshow(image, cmap='gray', vmin=-1, vmax=1, interpolation='none')
    ax.set_title(modality.label)
  if len(images) > 1:
    first, second = (case.pictures[m] for m in _furthest_apart(case))
    rows, columns = np.indices(first.shape) * _SQUARES // len(first)
    board = np.where((rows + columns) % 2, second, first)
    axes[-1].imshow(board, cmap='gray', vmin=-1, vmax=1, interpolation='none')
    axes[-1].set_title('checkerboard')
  for ax in axes:
    ax.set_axis_off()
  return figure


def _furthest_apart(case: CaseFacts) -> tuple[Modality, Modality]:
  """The reference and the volume with the largest offset from it."""
  off = {m: v.offset for m, v in case.volumes.items() if v.offset}
  worst = max(off, key=lambda m: off[m].distance, default=None)
  names = list(case.pictures)
  if worst is None:
    return names[0], names[1]
  return next((m for m in names if m not in off), names[0]), worst


def _rows(cases: Sequence[CaseFacts]) -> Iterator[list[str]]:
  for case in cases:
    for modality, facts in case.volumes.items():
      yield [case.id, modality.label, *_cells(facts)]


def _cells(facts: VolumeFacts) -> list[str]:
  return [
    ' x '.join(map(str, facts.shape)),
    ' x '.join(f'{s:.2f}' for s in facts.spacing),
    facts.axes,
    f'{facts.low:g} to {facts.high:g}',
    f'{facts.percentiles[0]:.4g} to {facts.percentiles[1]:.4g}',
    'shared' if facts.same_grid else 'own',
    _offset(facts),
    facts.reading or '–',
  ]


def _offset(facts: VolumeFacts) -> str:
  if facts.offset is None:
    return '–'
  text = f'{facts.offset}, gain {facts.offset.gain:.3f}'
  return text if facts.offset.distance else f'{text}, not significant'
