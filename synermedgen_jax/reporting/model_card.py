"""Writes the model card of a weights folder from the run that made it.

A card is a README.md with the header that the Hugging Face hub reads. Its
numbers are those of the run's record, store and evaluation; the card names what
none of them says as not known.
"""

from __future__ import annotations

import collections
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from synermedgen_jax.checkpoint import weights_folder
from synermedgen_jax.core import files
from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.modalities import route_named
from synermedgen_jax.core.size import size_text
from synermedgen_jax.evaluation.named_scores import ALL_SCORES
from synermedgen_jax.evaluation.routes import TRIVIAL, difference_text
from synermedgen_jax.evaluation.subjects import FILE
from synermedgen_jax.inference.workdir import RunRecord
from synermedgen_jax.interop import hub
from synermedgen_jax.interop.tensor_files import read_tensors
from synermedgen_jax.reporting.results import read_evaluation
from synermedgen_jax.slices.store import SliceStore
from synermedgen_jax.training.objectives import OBJECTIVES

_LICENSE = re.compile(r'[a-z0-9][a-z0-9.-]*')
_SPLITS = ('train', 'val', 'test', 'holdout')
_SUFFIX = '.nii.gz'
_OF_DIFFERENCE = ('difference', 'better_baseline', 'interval')


class CardError(UserError):
  """A card that cannot be written or lacks a part; one line."""


def write_card(
  folder: Path, workdir: Path, *, name: str, address: str, license: str = ''
) -> None:
  """Writes README.md into a weights folder.

  Args:
    folder: a weights folder of `shipping.ship`.
    workdir: its run; `evaluation` in it has the measurements.
    name: title of the card.
    address: the folder or hf:// address in the commands of the card.
    license: identifier of the license of the weights, as the hub lists them;
      '' = not stated.

  Raises:
    CardError: the license is no identifier, or another checkpoint or model was
      evaluated.
    ResultError: a file of the evaluation is malformed.
    StoreError: the store of the run is unfinished or damaged.
  """
  if license and not _LICENSE.fullmatch(license):
    raise CardError(
      f'--license={license}: expected an identifier of the hub, such as '
      'apache-2.0, cc-by-4.0 or other.'
    )
  record = json.loads((folder / weights_folder.RECORD).read_text('utf-8'))
  run, of_run = RunRecord.load(str(folder)), RunRecord.load(str(workdir))
  text = _template().render(
    name=name,
    address=address,
    license=license,
    stage=run.config['stage'],
    step=record['step'],
    routes=run.routes or (),
    synthesises=_synthesises(run.config),
    fingerprint=run.store_fingerprint,
    data=_data(of_run.config['store'], run.store_fingerprint),
    started_from=_started_from(of_run.config),
    base_model=_base_model(run.config),
    evaluation=_evaluation(workdir, record['step']),
    commands=_commands(run.routes or (), address),
    versions=sorted(record['versions'].items()),
    commit=record.get('commit', ''),
    **_tensors(folder),
    **_slices(run),
  )
  files.write_text(folder / weights_folder.CARD, text)


def _template() -> jinja2.Template:
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).with_name('templates')),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    autoescape=False,  # Markdown; `cell` escapes what runs name
  )
  environment.filters['cell'] = _cell
  return environment.get_template('model_card.md')


def _cell(value: object) -> str:
  """Text that cannot end a cell of a table, or hold HTML."""
  text = ' '.join(str(value).split())
  return text.replace('|', '\\|').replace('<', '&lt;')


def _tensors(folder: Path) -> dict[str, str]:
  tensors = read_tensors(folder / weights_folder.TENSORS).values()
  count = sum(math.prod(tensor.shape) for tensor in tensors)
  dtypes = sorted({tensor.dtype.name for tensor in tensors})
  return {'parameters': f'{count / 1e6:.2f}', 'dtype': ' and '.join(dtypes)}


def _slices(run: RunRecord) -> dict[str, Any]:
  windows = [
    {
      'modality': modality.label,
      'low': f'{window.low:g}',
      'high': f'{window.high:g}',
      'unit': modality.unit,
    }
    for modality, window in sorted(run.slices.windows.items())
  ]
  return {
    'plane': run.slices.plane,
    'canvas': size_text(run.slices.canvas),
    'frame': run.slices.frame,
    'windows': windows,
  }


def _data(path: str, fingerprint: str | None) -> dict[str, Any] | None:
  """What the store of a run holds; None if it is gone or another one."""
  here = '://' in path or Path(path).is_dir()
  if not path or not fingerprint or not here:
    return None
  store = SliceStore.open(path)
  if store.fingerprint != fingerprint:
    return None
  people = collections.defaultdict(lambda: collections.defaultdict(set))
  for case in store.cases:
    people[case.dataset][case.split].add(case.person)
  datasets = [
    {'name': name, 'splits': _counts(splits)}
    for name, splits in sorted(people.items())
  ]
  phantoms = ''
  if 'phantom' in store.layouts:
    phantoms = 'all' if set(store.layouts) == {'phantom'} else 'some'
  return {
    'fingerprint': fingerprint,
    'layouts': store.layouts,
    'datasets': datasets,
    'phantoms': phantoms,
  }


def _counts(splits: Mapping[str, set[str]]) -> str:
  """As 'subjects: train 24, val 4'."""
  parts = [f'{name} {len(splits[name])}' for name in _SPLITS if splits[name]]
  return f'subjects: {", ".join(parts)}'


def _synthesises(config: Mapping[str, Any]) -> bool:
  stage = OBJECTIVES.get(config['stage'])
  return stage is not None and 'flow' in stage.terms


def _started_from(config: Mapping[str, Any]) -> str:
  start = config['init_from']
  if not start:
    return 'random weights, or weights that are not recorded'
  return start if hub.is_address(start) else 'another run, or a weights folder'


def _base_model(config: Mapping[str, Any]) -> str:
  start = config['init_from']
  return hub.Address.parse(start).repository if start else ''


def _commands(routes: tuple[str, ...], address: str) -> list[str]:
  """The command that predicts the first route."""
  if not routes:
    return []
  route = route_named(routes[0])
  inputs = ','.join(f'{source}{_SUFFIX}' for source in route.sources)
  return [
    f'synermedgen predict --workdir={address} \\',
    f'    -i {inputs} --source={",".join(route.sources)} '
    f'--target={route.target} \\',
    f'    --region={route.region} -o {route.target}{_SUFFIX}',
  ]


def _evaluation(workdir: Path, step: int) -> dict[str, Any] | None:
  """The measurements of a run; None if there are none."""
  read = read_evaluation(workdir)
  if read is None:
    return None
  metrics = read.metrics
  people = json.loads((workdir / FILE).read_text('utf-8'))
  settings = people['settings']
  other = metrics.get('sampling', {}).get('synthesiser')
  if other or settings.get('steps') != [step]:
    measured = other or f'step {", ".join(map(str, settings.get("steps", [])))}'
    raise CardError(
      f'{workdir}/evaluation: is of {measured}, the weights are of step '
      f'{step}; evaluate again, or remove the folder.'
    )
  definition = metrics.get('definition')
  if not definition:
    raise CardError(
      f'{workdir}/evaluation: has no definitions of its numbers, as of older '
      'versions; evaluate again.'
    )
  return {
    'split': metrics['split'],
    'store': settings['store'],
    'sampling': json.dumps(metrics.get('sampling', {})),
    'subjects': len(people['subjects']),
    'slices': metrics.get('slices', 'none, questions only'),
    **_routes(metrics.get('synthesis', {}), definition),
    'scores': [
      _score(name, metrics[name], definition[name])
      for name in ALL_SCORES
      if name in metrics
    ],
    'tasks': [
      (
        _cell(task),
        f'{score["accuracy"]:.3f}',
        f'{score["chance"]:.3f}',
        score['count'],
      )
      for task, score in metrics.get('understanding', {}).items()
    ],
    'task_definitions': [
      (_cell(task), _text(parts))
      for task, parts in definition.get('understanding', {}).items()
    ],
  }


def _routes(
  synthesis: Mapping[str, Any], definition: Mapping[str, Any]
) -> dict[str, Any]:
  """The table of the routes, and the definitions of its columns."""
  definitions = definition.get('synthesis', {})
  rows = []
  for route, score in synthesis.items():
    baselines = score['baselines']
    rows.append(
      [
        _cell(route),
        score['count'],
        *(f'{score[name]:.4g}' for name in definitions),
        _cell(score['unit']),
        *(
          f'{baselines[name]["ssim"]:.4g}' if name in baselines else 'none'
          for name in TRIVIAL
        ),
        difference_text(score),
      ]
    )
  columns = [
    *('route', 'subjects', *definitions, 'unit of mae'),
    *(f'ssim of {name}' for name in TRIVIAL),
    'difference (95 %)',
  ]
  texts, wins = (definition.get(key, {}) for key in ('baselines', 'win'))
  defined = {
    **definitions,
    **{name: texts[name] for name in TRIVIAL if name in texts},
    **{name: wins[name] for name in _OF_DIFFERENCE if name in wins},
  }
  parts = [(_cell(name), _text(parts)) for name, parts in defined.items()]
  return {'columns': columns, 'routes': rows, 'definitions': parts}


def _score(
  name: str, by_route: Mapping[str, Any], definition: Any
) -> dict[str, Any]:
  """The table of a score of volumes."""
  names = list(next(iter(by_route.values()), {}))
  return {
    'name': _cell(name),
    'columns': ['route', *names],
    'rows': [
      [_cell(route), *(f'{score[n]:.4g}' for n in names)]
      for route, score in by_route.items()
    ],
    'definition': _text(definition),
  }


def _text(definition: Any) -> str:
  """A definition in one line, without what is not in the body mask."""
  if isinstance(definition, str):
    return _cell(definition).rstrip('.')
  return '; '.join(
    f'{_cell(part)}: {_text(text)}'
    for part, text in definition.items()
    if part != 'full_frame'
  )
