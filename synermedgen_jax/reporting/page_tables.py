"""Cards and tables of the report, as plain values for its template."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from synermedgen_jax.core.modalities import ROUTES, route_named
from synermedgen_jax.evaluation.named_scores import ALL_SCORES
from synermedgen_jax.evaluation.results import EXTERNAL
from synermedgen_jax.evaluation.routes import BASELINES, added_metrics
from synermedgen_jax.reporting.charts import stage_title
from synermedgen_jax.reporting.pictures import route_title
from synermedgen_jax.reporting.results import Stage
from synermedgen_jax.reporting.subject_values import Score
from synermedgen_jax.tasks.registry import TASKS

_BOLD = Markup('<b>{}</b>')
_CODE = Markup('<code>{}</code>')
_RANGE = Markup('<span class="range">{:.3f}–{:.3f}</span>')
_WIN = Markup('<span class="win">✓ win</span>')


@dataclasses.dataclass(frozen=True)
class Card:
  """A number at the head of the page."""

  label: str
  value: str
  notes: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Table:
  """Rows of cells; columns not in `left` are right-aligned numbers."""

  head: Sequence[str]
  rows: Sequence[Sequence[str]]
  left: Sequence[int] = (0,)
  foot: Sequence[str] = ()


def synthesis_cards(metrics: Mapping[str, Any]) -> Iterator[Card]:
  if not metrics.get('synthesis'):
    return
  summary = metrics['summary']
  baselines = summary['mean_ssim_baselines']
  better = summary['better_baseline']
  left_out = [r for r in ROUTES if r.name not in metrics['synthesis']]
  yield Card(
    'mean SSIM',
    f'{summary["mean_ssim"]:.3f}',
    [
      f'{better.replace("_", " ")}, the better trivial baseline: '
      f'{baselines[better]:.3f}'
    ],
  )
  notes = [
    'the 95 % interval of the difference to the better trivial baseline is '
    'above zero'
  ]
  if left_out:
    notes.append(f'{len(left_out)} of {len(ROUTES)} not scored')
  yield Card('routes won', f'{summary["wins"]} of {summary["routes"]}', notes)
  if 'ceiling' in baselines:
    yield Card(
      'ceiling, mean SSIM',
      f'{baselines["ceiling"]:.3f}',
      ['the truth through the autoencoder'],
    )


def task_cards(metrics: Mapping[str, Any]) -> Iterator[Card]:
  for task, score in metrics.get('understanding', {}).items():
    yield Card(
      f'{task.upper()} accuracy',
      f'{score["accuracy"]:.3f}',
      [
        f'chance {score["chance"]:.3f}, {score["count"]} '
        f'{TASKS[task].scoring.unit}'
      ],
    )


def worst_table(scores: Sequence[Score], metrics: Mapping[str, Any]) -> Table:
  synthesis = metrics.get('synthesis', {})
  return Table(
    ('subject', 'route', 'SSIM', 'route’s mean', 'PSNR (dB)', 'MAE', ''),
    [
      (
        score.subject,
        score.title,
        _BOLD.format(f'{score.ssim:.3f}'),
        f'{synthesis[score.route]["ssim"]:.3f}',
        f'{score.values["psnr"]:.1f}',
        f'{score.values["mae"]:.3g}',
        synthesis[score.route]['unit'],
      )
      for score in scores
    ],
    left=(0, 1, 6),
  )


def route_table(metrics: Mapping[str, Any]) -> Table:
  synthesis = metrics['synthesis']
  added = added_metrics(metrics)
  head = ['route', 'n', 'SSIM', '95 % interval', 'copy', 'mean', 'ceiling']
  head += ['difference (95 %)']
  left = (0, len(head), len(head) + 3)
  head += ['', 'PSNR (dB)', 'MAE', '', 'SSIM, full frame', *added, 'name']
  left = (*left, len(head) - 1)
  rows = []
  for name, score in synthesis.items():
    others = (score['baselines'].get(b, {}).get('ssim') for b in BASELINES)
    rows.append(
      [
        route_title(route_named(name)),
        str(score['count']),
        _BOLD.format(f'{score["ssim"]:.3f}'),
        _interval(score.get('interval')),
        *map(_ssim, others),
        _difference(score.get('difference')),
        _WIN if score['win'] else '',
        f'{score["psnr"]:.1f}',
        f'{score["mae"]:.3g}',
        score['unit'],
        f'{score["full_frame"]["ssim"]:.3f}',
        *(f'{score[metric]:.4g}' for metric in added),
        _CODE.format(name),
      ]
    )
  summary = metrics['summary']
  others = (summary['mean_ssim_baselines'].get(name) for name in BASELINES)
  foot = ['mean', '', f'{summary["mean_ssim"]:.3f}', '', *map(_ssim, others)]
  foot += ['', f'{summary["wins"]} of {summary["routes"]}']
  foot += [''] * (len(head) - len(foot))
  return Table(head, rows, left, foot)


def _interval(values: Sequence[float] | None) -> str:
  """Both ends; one subject has none."""
  return '–' if values is None else _RANGE.format(*values).replace('-', '−')


def _difference(values: Sequence[float] | None) -> str:
  """Mean and interval; one subject has none."""
  if values is None:
    return '–'
  words = Markup('{:+.3f} <span class="range">{:+.3f} to {:+.3f}</span>')
  return words.format(*values).replace('-', '−')


def _ssim(value: float | None) -> str:
  return '–' if value is None else f'{value:.3f}'.replace('-', '−')


def volume_scores(
  metrics: Mapping[str, Any],
) -> Iterator[tuple[str, str, Table]]:
  """Yields name, title and table of the scores that were requested."""
  for name, score in ALL_SCORES.items():
    if name not in metrics:
      continue
    head = [
      f'{number.label} ({number.unit})' if number.unit else number.label
      for number in score.numbers.values()
    ]
    rows = [
      [
        route_title(route_named(route)),
        f'{values["count"]:.0f}' if 'count' in values else '–',
        *(
          f'{values[metric]:.{number.decimals}f}'.replace('-', '−')
          if metric in values
          else '–'
          for metric, number in score.numbers.items()
        ),
      ]
      for route, values in metrics[name].items()
    ]
    yield name, score.title, Table(['route', 'n', *head], rows)


def task_table(metrics: Mapping[str, Any]) -> Table | None:
  scores = metrics.get('understanding')
  if not scores:
    return None
  rows = []
  for task, score in scores.items():
    unit, note = TASKS[task].scoring.unit, ''
    if 'exact' in score:
      note = f'all {unit} of a question right: {score["exact"]:.3f}'
    title = f'{task.upper()}, {TASKS[task].title}'
    rows.append(_task_row(title, score, unit, note))
    rows += [
      _task_row(f'{task.upper()}: {fact}', of_fact, unit)
      for fact, of_fact in score.get('facts', {}).items()
    ]
  return Table(['task', 'accuracy', 'chance', 'asked', ''], rows, (0, 4))


def _task_row(
  title: str, score: Mapping[str, Any], unit: str, note: str = ''
) -> list[str]:
  return [
    title,
    _BOLD.format(f'{score["accuracy"]:.3f}'),
    f'{score["chance"]:.3f}',
    f'{score["count"]} {unit}',
    note,
  ]


def training_table(stages: Sequence[Stage]) -> Table | None:
  if stages[-1].config['stage'] == EXTERNAL:
    return None
  rows = []
  for stage in stages:
    last = stage.rows[-1] if stage.rows else {}
    speeds = stage.curve('steps_per_second')[1]
    validation = stage.curve('val/loss')[1]
    rows.append(
      [
        stage_title(stage),
        _CODE.format(stage.workdir),
        f'{last["step"]:.0f}' if last else '–',
        f'{last["loss"]:.4f}' if 'loss' in last else '–',
        f'{validation[-1]:.4f}' if validation.size else '–',
        f'{sorted(speeds)[speeds.size // 2]:.2f}' if speeds.size else '–',
      ]
    )
  head = ['stage', 'workdir', 'steps', 'loss', 'val loss', 'steps/s']
  return Table(head, rows, (0, 1))
