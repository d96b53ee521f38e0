"""Draws synthesised slices, and questions with the model's answers.

Every function returns a new matplotlib `Figure` and leaves pyplot's global
state alone. Slices are shown as stored: anterior up, the patient's right on the
left. `charts` draws numbers.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from synermedgen_jax.core.modalities import Modality, Route
from synermedgen_jax.evaluation.understanding import is_correct, parts_of
from synermedgen_jax.reporting.results import Panel, Question
from synermedgen_jax.slices.grids import PICTURED
from synermedgen_jax.tasks.registry import TASKS, asked_tasks
from synermedgen_jax.tasks.scoring import read_letter

STYLE = {
  'font.family': 'DejaVu Sans',  # ships with matplotlib, on every machine
  'font.size': 9,
  'axes.titlesize': 10,
  'axes.labelsize': 9,
  'axes.spines.top': False,
  'axes.spines.right': False,
  'legend.frameon': False,
  'legend.fontsize': 8.5,
  'figure.titlesize': 11,
  'figure.titleweight': 'bold',
  'text.parse_math': False,  # answers may contain dollar signs
}
GRID = '#DDDDDD'
# The palette of Okabe and Ito, which is safe for colour-blind readers. Marks
# never differ by colour alone.
BLUE, ORANGE, GREEN, RED, SKY, GREY = (
  '#0072B2',
  '#E69F00',
  '#00795A',  # darkened for legible text
  '#C34A00',  # darkened for legible text
  '#56B4E9',
  '#6B6B6B',
)
OVERVIEW = (
  'brain_mr_to_ct',
  'brain_cbct_to_ct',
  'pelvis_mr_to_ct',
  'pelvis_ct_to_mr',
  'whole_body_pet_to_ct',
  'brats_t1_to_t2',
  'brats_t2_to_t1ce',
  'brats_t1ce_to_flair',
)
# Colour map, and the share of the window that it spans. PET is shown dark on
# white, and most tissue has far lower uptake than the hottest organs.
_SHOWN = {Modality.PET: ('gray_r', 0.5)}
_AS_STORED = ('gray', 1.0)
_ROWS = 3
_STEPS = (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)
_ROUNDING = 1e-6  # relative error of float32 images
_RIGHT, _WRONG = '\N{CHECK MARK}', '\N{BALLOT X}'


def to_png(figure: Figure, *, dpi: int = 120) -> bytes:
  """Returns the figure as the content of a PNG file."""
  file = io.BytesIO()
  figure.savefig(
    file, format='png', dpi=dpi, bbox_inches='tight', pad_inches=0.08
  )
  return file.getvalue()


def route_title(route: Route) -> str:
  """'brain MRI → CT', 'brain T1 (MRI) + T2 (MRI) → FLAIR (MRI)'."""
  sources = ' + '.join(source.label for source in route.sources)
  return f'{route.region.label} {sources} → {route.target.label}'


def error_limit(panel: Panel) -> float:
  """Limit of the colour scale of the error map, in the target's unit.

  The 99.5th percentile of the absolute error in the body, rounded up to a round
  number; a hundredth of the window if the error is zero.
  """
  inside = panel.mask if panel.mask.any() else np.ones_like(panel.mask)
  largest = float(np.percentile(np.abs(panel.error[inside]), 99.5))
  if not largest > 0:
    low, high = panel.target_window
    return (high - low) / 100
  power = 10.0 ** math.floor(math.log10(largest))
  limits = (step * power for step in _STEPS)
  return next(x for x in limits if largest <= x * (1 + _ROUNDING))


@mpl.rc_context(STYLE)
def route_panel(panel: Panel, ssim: float | None = None) -> Figure:
  """Draws sources, synthesis, truth and signed error of up to three slices.

  Args:
    panel: the slices; the first three are drawn.
    ssim: SSIM of the subject, mean over its scored slices, for the title.
  """
  rows = min(_ROWS, len(panel.truth))
  height, width = panel.truth.shape[1:]
  parts = _parts(panel)
  cell = 2.1
  figure = Figure(
    figsize=((len(parts) + 1) * cell + 1.1, rows * cell * height / width + 1.2),
    layout='compressed',
  )
  axes = figure.subplots(rows, len(parts) + 1, squeeze=False)
  limit = error_limit(panel)
  for row in range(rows):
    for column, (_, slices, modality) in enumerate(parts):
      show_slice(axes[row, column], slices[row], modality)
    image = _show_error(axes[row, -1], panel, row, limit)
    axes[row, 0].set_ylabel(f'slice {panel.indices[row]}')
  titles = (
    *(f'{name}: {modality.label}' for name, _, modality in parts),
    'synthesis − truth',
  )
  for axis, title in zip(axes[0], titles, strict=True):
    axis.set_title(title)
  beyond = np.abs(panel.error[:rows]).max() > limit * (1 + _ROUNDING)
  bar = figure.colorbar(
    image, ax=axes[:, -1], extend='both' if beyond else 'neither', aspect=30
  )
  bar.set_label(f'error ({panel.route.target.unit})')
  bar.outline.set_visible(False)
  bar.solids.set_rasterized(True)
  figure.suptitle(_panel_title(panel, ssim), x=0.01, ha='left')
  figure.supxlabel(_panel_note(panel), x=0.01, ha='left', size=8, color=GREY)
  return figure


def _parts(
  panel: Panel,
) -> tuple[tuple[str, Float[np.ndarray, 'n h w'], Modality], ...]:
  """(name, slices, modality) of the columns that show images."""
  route = panel.route
  return (
    *(
      ('source', slices, modality)
      for slices, modality in zip(panel.sources, route.sources, strict=True)
    ),
    ('synthesis', panel.synthesis, route.target),
    ('truth', panel.truth, route.target),
  )


def _panel_title(panel: Panel, ssim: float | None) -> str:
  title = f'{panel.route.name}   {route_title(panel.route)}'
  if ssim is None:
    return title
  return f'{title}\nSubject {panel.subject}: SSIM {ssim:.3f} over its slices'


def _panel_note(panel: Panel) -> str:
  """Describes windows, orientation and outline in two lines."""
  route = panel.route
  windows = zip(panel.source_windows, route.sources, strict=True)
  sources = ', '.join(_range(*window) for window in windows)
  target = _range(panel.target_window, route.target)
  return (
    f'Subject {panel.subject}. Grey scale of the source: {sources}; of '
    f'synthesis and truth: {target}.\n{PICTURED[panel.plane]}. The outline '
    'in the error map is the body mask.'
  )


def _range(window: tuple[float, float], modality: Modality) -> str:
  colours, share = _SHOWN.get(modality, _AS_STORED)
  low, high = window
  ends = low, low + share * (high - low)
  low, high = (f'{x:.4g}'.replace('-', '−') for x in ends)
  if colours == 'gray_r':
    return f'{low} (white) to {high} {modality.unit} (black)'
  return f'{low} to {high} {modality.unit}'


def show_slice(
  axis: Axes,
  image: Float[np.ndarray, 'h w'],
  modality: Modality | None = None,
) -> None:
  """Draws an image in [-1, 1]; in grey if the modality is None."""
  cmap, share = _SHOWN.get(modality, _AS_STORED)
  axis.imshow(
    image, cmap=cmap, vmin=-1, vmax=2 * share - 1, interpolation='none'
  )
  _bare(axis)


def _show_error(axis: Axes, panel: Panel, row: int, limit: float):
  image = axis.imshow(
    panel.error[row],
    cmap='RdBu_r',
    vmin=-limit,
    vmax=limit,
    interpolation='none',
  )
  mask = panel.mask[row]
  if mask.any() and not mask.all():
    axis.contour(mask, levels=[0.5], colors=GREY, linewidths=0.6)
  _bare(axis)
  return image


def _bare(axis: Axes) -> None:
  axis.set_xticks([])
  axis.set_yticks([])
  axis.spines[:].set_visible(False)


@mpl.rc_context(STYLE)
def overview(panels: Mapping[str, Panel], *, most: int = 8) -> Figure:
  """Draws one slice of several routes: sources, synthesis and truth in rows.

  Args:
    panels: route name -> panel; the routes of `OVERVIEW` come first.
    most: maximum number of routes.

  Raises:
    ValueError: there is no panel.
  """
  names = [name for name in OVERVIEW if name in panels]
  names += [name for name in panels if name not in names]
  chosen = [panels[name] for name in names[:most]]
  if not chosen:
    raise ValueError('An overview needs the panel of at least one route.')
  cell = 1.3
  ratio = max(p.truth.shape[1] / p.truth.shape[2] for p in chosen)
  most_sources = max(len(p.sources) for p in chosen)
  rows = [*['source'] * most_sources, 'synthesis', 'truth']
  figure = Figure(
    figsize=(cell * len(chosen) + 0.4, len(rows) * cell * ratio + 0.6),
    layout='compressed',
  )
  axes = figure.subplots(len(rows), len(chosen), squeeze=False)
  for axis, name in zip(axes[:, 0], rows, strict=True):
    axis.set_ylabel(name)
  for column, panel in zip(axes.T, chosen, strict=True):
    middle = len(panel.truth) // 2
    *sources, synthesis, truth = _parts(panel)
    for axis, part in zip(
      (*column[: len(sources)], *column[-2:]),
      (*sources, synthesis, truth),
      strict=True,
    ):
      show_slice(axis, part[1][middle], part[2])
    for axis in column[len(sources) : -2]:
      _bare(axis)
    route = panel.route
    shown = ' + '.join(map(_short, route.sources))
    column[0].set_title(
      f'{route.region.label}\n{shown} → {_short(route.target)}', size=9
    )
  return figure


def _short(modality: Modality) -> str:
  """'T1 (MRI)' -> 'T1', for narrow columns."""
  return modality.label.removesuffix(' (MRI)')


@mpl.rc_context(STYLE)
def understanding_picture(questions: Sequence[Question]) -> Figure:
  """Draws the first question of each task with the right and given answer.

  Right answers are green with a check mark, wrong ones red with a cross.

  Raises:
    ValueError: there is no question.
  """
  first: dict[str, Question] = {}
  for question in questions:
    first.setdefault(question.task, question)
  chosen = [first[task.name] for task in asked_tasks() if task.name in first]
  if not chosen:
    raise ValueError('The picture needs at least one question.')
  columns = max(5, *(len(q.images) for q in chosen))
  ratio = max(q.images.shape[1] / q.images.shape[2] for q in chosen)
  cell, above, below = 1.85, 0.5, 1.0  # inches
  height = cell * ratio + above + below
  figure = Figure(figsize=(cell * columns, height * len(chosen)))
  parts = figure.subfigures(len(chosen), 1, squeeze=False)[:, 0]
  for part, question in zip(parts, chosen, strict=True):
    axes = part.subplots(
      1,
      columns,
      gridspec_kw={
        'left': 0.005,
        'right': 0.995,
        'bottom': below / height,
        'top': 1 - above / height,
        'wspace': 0.05,
      },
    )
    _draw_question(part, list(axes), question)
  return figure


def _draw_question(
  part: SubFigure, axes: Sequence[Axes], question: Question
) -> None:
  words, *options = question.question.split('\n')
  for axis, image, name in zip(
    axes, question.images, _image_names(question), strict=False
  ):
    show_slice(axis, image)
    axis.set_title(name, weight='bold' if len(name) == 1 else 'normal')
  for axis in axes[len(question.images) :]:
    axis.axis('off')
  if TASKS[question.task].scoring.per_image:
    _mark_panels(axes, question)
  elif options:
    _write_options(axes, question, options)
  else:
    _frame_candidates(axes, question)
  left = {'x': 0.008, 'ha': 'left'}
  part.suptitle(
    f'{question.task.upper()}   {words}', y=0.985, va='top', size=10.5, **left
  )
  right = is_correct(_record(question))
  given = question.prediction.strip() or '(empty)'
  part.text(
    y=0.13,
    s=f'{_RIGHT if right else _WRONG} model: {_wrap(given, 60)}     right '
    f'answer: {question.answer}',
    va='bottom',
    size=9.5,
    color=GREEN if right else RED,
    **left,
  )


def _record(question: Question) -> dict[str, str]:
  return {
    'task': question.task,
    'answer': question.answer,
    'prediction': question.prediction,
  }


def _image_names(question: Question) -> list[str]:
  """Label of each image; an image without a label is the source."""
  return [letter or 'source' for letter in question.letters]


def _mark_panels(axes: Sequence[Axes], question: Question) -> None:
  """Writes the right answer, and a wrong given one, under each panel."""
  panels = parts_of(_record(question))
  for axis, (truth, given) in zip(axes, panels, strict=False):
    right = truth == given
    words = f'{_RIGHT} {truth}' if right else f'{_WRONG} {given or "unread"}'
    axis.set_xlabel(
      words if right else f'{words}\nis {truth}', color=GREEN if right else RED
    )


def _frame_candidates(axes: Sequence[Axes], question: Question) -> None:
  """Frames the right candidate in green and a wrong choice in red."""
  right, given = (
    read_letter(words)[0] for words in (question.answer, question.prediction)
  )
  for axis, letter in zip(axes, question.letters, strict=False):
    if letter and letter in (right, given):
      color = GREEN if letter == right else RED
      axis.spines[:].set(visible=True, color=color, linewidth=2.5)
      mark = _RIGHT if letter == right else _WRONG
      axis.set_title(f'{letter} {mark}', weight='bold', color=color)


def _write_options(
  axes: Sequence[Axes], question: Question, options: Sequence[str]
) -> None:
  """Writes the options beside the images; marks right and wrong choices."""
  right, given = (
    read_letter(words)[0] for words in (question.answer, question.prediction)
  )
  axis = axes[min(len(question.images), len(axes) - 1)]
  for row, option in enumerate(options):
    letter = option.rsplit(' ', 1)[-1]
    color, mark = 'black', ''
    if letter and letter == right:
      color, mark = GREEN, f' {_RIGHT}'
    elif letter and letter == given:
      color, mark = RED, f' {_WRONG}'
    axis.text(
      0.0,
      1 - (row + 0.5) / len(options),
      _wrap(option, 56) + mark,
      transform=axis.transAxes,
      va='center',
      color=color,
      size=10,
    )


def _wrap(words: str, width: int) -> str:
  return '\n'.join(textwrap.wrap(words, width, drop_whitespace=False)) or words
