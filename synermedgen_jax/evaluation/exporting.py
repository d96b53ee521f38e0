"""Writes the sources of held-out pairs for programs outside the project.

    OUTPUT/ROUTE/volumes/NAME.nii.gz   a source, in HU, SUV or the MR's unit
    OUTPUT/ROUTE/slices/NAME.png       its scored slices, 8 bits, grey
    OUTPUT/metadata.json               {NAME: {"id": picture, "prompt": text}}
    OUTPUT/index.jsonl                 a line per slice

No target is written for its route. The target of a route may be the source of
another one, so a program for one route should be given that folder alone.

NAME is `output_files.output_name`: an output of the same name is found again by
`external.score`. metadata.json has the format of BAGEL's and SynerMedGen's
inference scripts, which write NAME.png; paths are relative to OUTPUT.
index.jsonl has columns of the tables that `output_files` reads, and the paths,
window and unit of the source.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from synermedgen_jax.core import files, progress
from synermedgen_jax.evaluation.output_files import OutputError, output_name
from synermedgen_jax.evaluation.protocol import RoutePair
from synermedgen_jax.interop.image_files import encode_png
from synermedgen_jax.slices.grids import from_slices
from synermedgen_jax.slices.store import SliceStore
from synermedgen_jax.slices.volumes import Volume, write_volume
from synermedgen_jax.tasks.prompts import Prompts


@dataclasses.dataclass(frozen=True)
class Exported:
  """What was exported.

  Attributes:
    volumes: number of volumes.
    slices: number of slices.
    routes: names of the routes.
  """

  volumes: int
  slices: int
  routes: tuple[str, ...]


def export_tests(
  store: SliceStore,
  pairs: Sequence[RoutePair],
  output: Path,
  prompts: Prompts,
) -> Exported:
  """Writes the sources of pairs; index.jsonl last.

  Args:
    store: the store of the pairs.
    pairs: held-out pairs, with the slices to export.
    output: a new or empty folder.
    prompts: the wordings; each route has its canonical one.

  Raises:
    OutputError: the folder has files, or a route has several sources:
      metadata.json names one picture.
  """
  for pair in pairs:
    if len(pair.route.sources) > 1:
      raise OutputError(
        f'{pair.route.name}: has several sources, and the programs that read '
        'metadata.json take one; export the routes of its single sources.'
      )
  if output.is_dir() and any(output.iterdir()):
    raise OutputError(f'{output}: is not empty; name a new folder.')
  rows, metadata, volumes, routes = [], {}, 0, {}
  for pair in progress.each(pairs, 'export', len(pairs), 'volume'):
    data = store.read_volume(pair.case.id, pair.route.source)
    _write_volume(output, pair, data)
    for index in pair.indices.tolist():
      row = _row(pair, index)
      files.write_bytes(output / row['source'], encode_png(data[index]))
      metadata[Path(row['file']).stem] = {
        'id': row['source'],
        'prompt': prompts.canonical(pair.route),
      }
      rows.append(row)
    volumes += 1
    routes[pair.route.name] = None
  files.write_json(output / 'metadata.json', metadata)
  lines = ''.join(f'{json.dumps(row)}\n' for row in rows)
  files.write_text(output / 'index.jsonl', lines)
  return Exported(volumes, len(rows), tuple(routes))


def _write_volume(
  output: Path, pair: RoutePair, data: Float[np.ndarray, 'z h w']
) -> None:
  window = pair.case.modalities[pair.route.source]
  voxels = from_slices(window.denormalise(data))
  volume = Volume(voxels, np.array(pair.case.affine))
  write_volume(output / _volume_path(pair), volume)


def _volume_path(pair: RoutePair) -> str:
  name = output_name(pair.route.name, pair.case.id)
  return f'{pair.route.name}/volumes/{name}.nii.gz'


def _row(pair: RoutePair, index: int) -> dict[str, Any]:
  """A line of index.jsonl; `file`, `window` and `unit` are of the target."""
  route, case = pair.route, pair.case
  name = output_name(route.name, case.id, index)
  source, target = (case.modalities[m] for m in (route.source, route.target))
  return {
    'route': route.name,
    'case': case.id,
    'slice': index,
    'source': f'{route.name}/slices/{name}.png',
    'source_window': [source.low, source.high],
    'volume': _volume_path(pair),
    'file': f'{name}.png',
    'window': [target.low, target.high],
    'unit': route.target.unit,
  }
