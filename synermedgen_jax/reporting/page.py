"""The report as one HTML file with embedded pictures, without scripts."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from synermedgen_jax.core.modalities import ROUTES, route_named
from synermedgen_jax.evaluation.results import EXTERNAL
from synermedgen_jax.evaluation.routes import (
  BASELINES,
  added_metrics,
  left_out_note,
)
from synermedgen_jax.evaluation.volume_scores import VOLUME_SCORES
from synermedgen_jax.reporting.charts import stage_title
from synermedgen_jax.reporting.markup import (
  Html,
  document,
  facts,
  picture,
  table,
  tag,
)
from synermedgen_jax.reporting.pictures import route_title
from synermedgen_jax.reporting.results import Evaluation, Stage
from synermedgen_jax.tasks.registry import TASKS


def evaluate_command(workdir: Path) -> str:
  """Returns the shell command that measures a stage."""
  folder = shlex.quote(str(workdir))
  return f'python -m synermedgen_jax.evaluate --workdir={folder}'


def page(
  stages: Sequence[Stage],
  missing: Sequence[str],
  evaluation: Evaluation | None,
  pictures: Mapping[str, bytes],
) -> str:
  """Returns the HTML of the report.

  Args:
    stages: first to last; the report is about the last one.
    missing: one line for each earlier stage that cannot be read.
    evaluation: results of the last stage; None = not measured.
    pictures: name -> content of a PNG file. Names are loss_curves, route_bars,
      understanding, confusion_TASK, overview and panels/ROUTE; all optional
      except route_bars if routes were scored.
  """
  stage = stages[-1]
  metrics = evaluation.metrics if evaluation else {}
  sections = [
    *_head(stage, metrics),
    *(
      tag('p', *line, cls='note')
      for line in _missing(stages, missing, evaluation)
    ),
    *_synthesis(metrics, pictures),
    *_volume_scores(metrics),
    *_understanding(metrics, pictures),
    *_training(stages, pictures),
    *_settings(stages, metrics),
  ]
  return document(f'SynerMedGen: {stage.workdir}', sections)


def _head(stage: Stage, metrics: Mapping[str, Any]) -> Iterator[Html]:
  yield tag('h1', 'SynerMedGen report')
  about = f', model {stage.config["model"]}' if 'model' in stage.config else ''
  if 'split' in metrics:
    about += (
      f'. Measured on the {metrics["split"]} split of '
      f'{metrics.get("store", "the store")}, '
      f'{len(metrics.get("subjects", ()))} cases'
    )
  if 'synthesiser' in metrics.get('sampling', {}):
    about += f'. Synthesised by {metrics["sampling"]["synthesiser"]}'
  yield tag(
    'p',
    tag('code', stage.workdir),
    f' · {stage_title(stage)}{about}.',
    cls='soft',
  )
  cards = [*_synthesis_cards(metrics), *_task_cards(metrics)]
  if cards:
    yield tag('div', *cards, cls='cards')


def _card(label: str, value: str, *notes: str) -> Html:
  lines = (tag('span', note) for note in notes)
  return tag('div', tag('span', label), tag('b', value), *lines, cls='card')


def _synthesis_cards(metrics: Mapping[str, Any]) -> Iterator[Html]:
  if not metrics.get('synthesis'):
    return
  summary = metrics['summary']
  baselines = summary['mean_ssim_baselines']
  better = summary['better_baseline']
  left_out = [r for r in ROUTES if r.name not in metrics['synthesis']]
  yield _card(
    'mean SSIM',
    f'{summary["mean_ssim"]:.3f}',
    f'{better.replace("_", " ")}, the better trivial baseline: '
    f'{baselines[better]:.3f}',
  )
  yield _card(
    'routes won',
    f'{summary["wins"]} of {summary["routes"]}',
    'the 95 % interval of the difference to the better trivial baseline is '
    'above zero',
    *([f'{len(left_out)} of {len(ROUTES)} not scored'] if left_out else []),
  )
  if 'ceiling' in baselines:
    yield _card(
      'ceiling, mean SSIM',
      f'{baselines["ceiling"]:.3f}',
      'the truth through the autoencoder',
    )


def _task_cards(metrics: Mapping[str, Any]) -> Iterator[Html]:
  for task, score in metrics.get('understanding', {}).items():
    yield _card(
      f'{task.upper()} accuracy',
      f'{score["accuracy"]:.3f}',
      f'chance {score["chance"]:.3f}, {score["count"]} '
      f'{TASKS[task].scoring.unit}',
    )


def _missing(
  stages: Sequence[Stage],
  missing: Sequence[str],
  evaluation: Evaluation | None,
) -> Iterator[Sequence[str]]:
  """Yields a note per missing part, with the command that computes it."""
  if stages[-1].config['stage'] == EXTERNAL:
    return
  yield from ((line,) for line in missing)
  for stage in stages:
    if not stage.rows:
      yield (
        f'{stage.workdir}/metrics.jsonl has no logged step, so the curves of '
        f'{stage_title(stage)} are missing. Training writes it: ',
        tag('code', 'python -m synermedgen_jax.main --config=… --workdir=…'),
      )
  workdir = stages[-1].workdir
  again = tag('code', evaluate_command(workdir))
  if stages[-1].config['stage'] == 'autoencoder':
    yield (
      'An autoencoder has no answers and no routes; report on a later stage.',
    )
  elif evaluation is None:
    yield 'This stage has not been measured. Measure it with ', again
  else:
    yield from _missing_parts(stages[-1], evaluation, again)


def _missing_parts(
  stage: Stage, evaluation: Evaluation, again: Html
) -> Iterator[Sequence[str]]:
  if 'synthesis' not in evaluation.metrics:
    if stage.config['stage'] == 'gau':
      command = (
        'python -m synermedgen_jax.main --config=configs/stage2.py:PRESET '
        f'--config.init_from={shlex.quote(str(stage.workdir))} --workdir=…'
      )
      yield 'Stage I trains no synthesis. Stage II does: ', tag('code', command)
    else:
      yield 'Synthesis has not been measured. Measure it with ', again
  without_panel = set(evaluation.metrics.get('synthesis', {})) - set(
    evaluation.panels
  )
  if without_panel:
    names = ', '.join(sorted(without_panel))
    yield f'No pictures of {names}. Compute them with ', again
  if 'understanding' not in evaluation.metrics:
    yield 'Understanding has not been measured. Measure it with ', again
  elif not evaluation.questions:
    yield 'No examples of questions. Compute them with ', again


def _synthesis(
  metrics: Mapping[str, Any], pictures: Mapping[str, bytes]
) -> Iterator[Html]:
  if not metrics.get('synthesis'):
    return
  yield tag('h2', 'Synthesis')
  if 'overview' in pictures:
    yield picture('One slice of several routes', pictures['overview'])
  yield _route_table(metrics)
  yield tag(
    'p',
    'In the body mask; mean over the cases of a subject, then over subjects. '
    'n: number of subjects. copy: the unchanged source, or the mean of several '
    'sources. mean: the mean target '
    'image of the training subjects. ceiling: the truth through the '
    'autoencoder and, for a model of codes, its codes. win: the 95 % bootstrap '
    'interval over subjects of the SSIM less that of the better one of copy '
    'and mean is above zero. Other columns are named as in the definitions '
    f'below. {left_out_note(metrics)}',
    cls='soft',
  )
  yield picture('SSIM per route', pictures['route_bars'])
  shown = [n for n in metrics['synthesis'] if f'panels/{n}' in pictures]
  if shown:
    yield tag('h3', 'Slices of the first held-out subject')
  for name in shown:
    score = metrics['synthesis'][name]
    title = route_title(route_named(name))
    yield tag(
      'details',
      tag(
        'summary',
        f'{title}, SSIM {score["ssim"]:.3f} ',
        tag('code', name),
        *([tag('span', ' ✓ win', cls='win')] if score['win'] else []),
      ),
      picture(f'Slices of {title}', pictures[f'panels/{name}']),
    )


def _route_table(metrics: Mapping[str, Any]) -> Html:
  added = added_metrics(metrics)
  head = ['route', 'n', 'SSIM', 'copy', 'mean', 'ceiling', '', 'PSNR (dB)']
  head += ['MAE', '', 'SSIM, full frame', *added]
  rows = []
  for name, score in metrics['synthesis'].items():
    others = (score['baselines'].get(b, {}).get('ssim') for b in BASELINES)
    rows.append(
      [
        route_title(route_named(name)),
        str(score['count']),
        tag('b', f'{score["ssim"]:.3f}'),
        *map(_ssim, others),
        tag('span', '✓ win', cls='win') if score['win'] else '',
        f'{score["psnr"]:.1f}',
        f'{score["mae"]:.3g}',
        score['unit'],
        f'{score["full_frame"]["ssim"]:.3f}',
        *(f'{score[name]:.4g}' for name in added),
      ]
    )
  summary = metrics['summary']
  others = (summary['mean_ssim_baselines'].get(name) for name in BASELINES)
  foot = ['mean', '', f'{summary["mean_ssim"]:.3f}', *map(_ssim, others)]
  foot += [f'{summary["wins"]} of {summary["routes"]}', *[''] * 4]
  foot += [''] * len(added)
  return table(head, rows, foot, left=(0, 6, 9))


def _ssim(value: float | None) -> str:
  return '–' if value is None else f'{value:.3f}'


def _volume_scores(metrics: Mapping[str, Any]) -> Iterator[Html]:
  """The scores of volumes that were requested."""
  for name, score in VOLUME_SCORES.items():
    if name not in metrics:
      continue
    rows = [
      [route_title(route_named(route)), *score.texts(values)]
      for route, values in metrics[name].items()
    ]
    yield tag('h3', f'Scores of {score.title}')
    yield table(['route', *[''] * len(score.numbers)], rows, left=(0,))


def _understanding(
  metrics: Mapping[str, Any], pictures: Mapping[str, bytes]
) -> Iterator[Html]:
  scores = metrics.get('understanding')
  if not scores:
    return
  yield tag('h2', 'Understanding')
  rows = [
    [
      f'{task.upper()}, {TASKS[task].title}',
      tag('b', f'{score["accuracy"]:.3f}'),
      f'{score["chance"]:.3f}',
      f'{score["count"]} {TASKS[task].scoring.unit}',
      f'all {TASKS[task].scoring.unit} of a question right: '
      f'{score["exact"]:.3f}'
      if 'exact' in score
      else '',
    ]
    for task, score in scores.items()
  ]
  head = ['task', 'accuracy', 'chance', 'asked', '']
  yield table(head, rows, left=(0, 4))
  if 'understanding' in pictures:
    yield tag('h3', 'The first question of each task')
    yield picture(
      'A question of each task, with the right and the given answer',
      pictures['understanding'],
    )
  for task in scores:
    if f'confusion_{task}' in pictures:
      yield tag('h3', f'{task.upper()}: right and given answers')
      yield picture(
        f'Confusion table of {task.upper()}', pictures[f'confusion_{task}']
      )


def _training(
  stages: Sequence[Stage], pictures: Mapping[str, bytes]
) -> Iterator[Html]:
  if stages[-1].config['stage'] == EXTERNAL:
    return
  yield tag('h2', 'Training')
  rows = []
  for stage in stages:
    last = stage.rows[-1] if stage.rows else {}
    speeds = stage.curve('steps_per_second')[1]
    validation = stage.curve('val/loss')[1]
    rows.append(
      [
        stage_title(stage),
        tag('code', stage.workdir),
        f'{last["step"]:.0f}' if last else '–',
        f'{last["loss"]:.4f}' if 'loss' in last else '–',
        f'{validation[-1]:.4f}' if validation.size else '–',
        f'{sorted(speeds)[speeds.size // 2]:.2f}' if speeds.size else '–',
      ]
    )
  head = ['stage', 'workdir', 'steps', 'loss', 'val loss', 'steps/s']
  yield table(head, rows, left=(0, 1))
  if 'loss_curves' in pictures:
    yield picture('Losses and accuracies by step', pictures['loss_curves'])


def _settings(
  stages: Sequence[Stage], metrics: Mapping[str, Any]
) -> Iterator[Html]:
  """Definitions of all numbers, settings of evaluation, configs of training."""
  for part, metrics_of_part in metrics.get('definition', {}).items():
    yield tag('h2', f'Definitions: {part}')
    yield facts(metrics_of_part)
  yield tag('h2', 'Settings')
  names = ('sampling', 'outputs', 'split', 'slices', 'store', 'subjects')
  measured = {name: metrics[name] for name in names if name in metrics}
  if measured:
    yield tag('h3', 'Evaluation')
    yield facts(measured)
  for stage in stages:
    versions = {f'version of {n}': v for n, v in stage.versions.items()}
    yield tag(
      'details',
      tag('summary', f'{stage_title(stage)}: config and versions'),
      facts({**stage.config, **versions}),
    )
