"""Files with outputs of other programs: their names, and tables that list them.

In a folder, the name of a file states what it is:

  brain_mr_to_ct__CASE__0012.png    slice 12 of a case: PNG, JPEG or NPY
  brain_mr_to_ct__CASE.nii.gz       the whole volume: NIfTI, MetaImage or NRRD

`CASE` is `store_files.case_key` of the id. A table has a line per file instead,
with paths relative to its folder:

  {"route": "brain_mr_to_ct", "case": "brain.b1", "slice": 12, "file": "a.png"}

A row without `slice` is a volume. `window`: values in the target's unit that
the file's black and white stand for; by default the window of the store.
`range`: numbers in an NPY file or a volume that are black and white; without
it, they are in the target's unit. `crop`: the image was cropped to the
non-black box of the `source` or of the `target`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from synermedgen_jax.core.choices import CROPS
from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.modalities import route_named
from synermedgen_jax.evaluation.protocol import RoutePair
from synermedgen_jax.slices.input_files import volume_stem
from synermedgen_jax.slices.store_files import case_key
from synermedgen_jax.slices.volumes import has_volume_suffix

JPEG = ('.jpg', '.jpeg')
PICTURES = ('.png', *JPEG)
ARRAYS = ('.npy',)
# Columns of the exported index that describe the source.
EXPORTED = ('source', 'source_window', 'volume', 'unit')
_COLUMNS = ('route', 'case', 'slice', 'file', 'window', 'range', 'crop')

Key = tuple[str, str, int | None]  # route, case, slice; None = the volume


class OutputError(UserError):
  """An output that cannot be scored; one line that names the file."""


@dataclasses.dataclass(frozen=True)
class OutputFile:
  """One file with an output of another program.

  Attributes:
    path: the file.
    where: the folder or the line that lists it, for messages.
    window: values in the target's unit of black and white; None = the window
      of the store.
    range: numbers in the file that are black and white; None = the numbers
      are in the target's unit.
    crop: one of `CROPS`: box to which the image was cropped; '' = none.
  """

  path: Path
  where: str
  window: tuple[float, float] | None = None
  range: tuple[float, float] | None = None
  crop: str = ''


def output_name(route: str, case: str, index: int | None = None) -> str:
  """Name without suffix of the output of a slice; None = of the volume."""
  name = f'{route}__{case_key(case)}'
  return name if index is None else f'{name}__{index:04d}'


def find_outputs(
  path: Path, pairs: Sequence[RoutePair], cases: Collection[str], crop: str
) -> dict[Key, OutputFile]:
  """Finds the files in a folder by name, or those that a table lists.

  Args:
    path: a folder, or a JSON Lines file.
    pairs: the pairs to score, which give the names in a folder.
    cases: ids of the cases of the store, which a table may name.
    crop: one of `CROPS`, or ''; a row of a table overrides it.

  Raises:
    OutputError: nothing can be read at the path, a row is invalid, or two
      files are outputs of one slice.
  """
  try:
    files = (
      _in_folder(path, pairs, crop)
      if path.is_dir()
      else _in_table(path, set(cases), crop)
    )
  except OSError as error:
    raise OutputError(f'{path}: cannot be read ({error.strerror}).') from None
  volumes = {key[:2]: file for key, file in files.items() if key[2] is None}
  for (*pair, index), file in files.items():
    if index is not None and tuple(pair) in volumes:
      raise OutputError(
        f'{file.path}: is a slice of {volumes[tuple(pair)].path}; keep one of '
        'the two.'
      )
  return files


def _in_folder(
  folder: Path, pairs: Iterable[RoutePair], crop: str
) -> dict[Key, OutputFile]:
  by_name: dict[str, Path] = {}
  for path in sorted(folder.iterdir()):
    if path.suffix.lower() in (*PICTURES, *ARRAYS):
      name = path.stem
    elif has_volume_suffix(path):
      name = volume_stem(path)
    else:
      continue
    if name in by_name:
      raise OutputError(
        f'{path}: is the same output as {by_name[name].name}; keep one of them.'
      )
    by_name[name] = path
  files = {}
  for pair in pairs:
    route, case = pair.route.name, pair.case.id
    for index in (None, *pair.indices.tolist()):
      path = by_name.get(output_name(route, case, index))
      if path and has_volume_suffix(path) == (index is None):
        files[route, case, index] = OutputFile(
          path, str(folder), crop='' if index is None else crop
        )
  return files


def _in_table(
  path: Path, cases: Collection[str], crop: str
) -> dict[Key, OutputFile]:
  files: dict[Key, OutputFile] = {}
  for number, line in enumerate(path.read_bytes().splitlines(), 1):
    if not line.strip():
      continue
    where = f'{path}: line {number}'
    try:
      row = json.loads(line)
      key, file = _parse(row, path.parent, where, crop)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
      detail = ' '.join(str(error).split()).rstrip('.')
      raise OutputError(f'{where}: missing or invalid: {detail}.') from None
    if key[1] not in cases:
      raise OutputError(f'{where}: the store has no case {key[1]!r}.')
    if key in files:
      raise OutputError(f'{where}: is the same slice as {files[key].where}.')
    files[key] = file
  return files


def _parse(
  row: Mapping[str, Any], folder: Path, where: str, crop: str
) -> tuple[Key, OutputFile]:
  """Reads a row; raises ValueError, TypeError or KeyError if it is invalid."""
  if unknown := sorted(row.keys() - {*_COLUMNS, *EXPORTED}):
    raise ValueError(
      f'{", ".join(unknown)}, expected some of {", ".join(_COLUMNS)}'
    )
  index = row.get('slice')
  if not (index is None or type(index) is int):
    raise ValueError(f'slice {index!r}, expected a whole number')
  route_named(row['route'])  # raises where there is none
  path = folder / row['file']
  kinds = (*PICTURES, *ARRAYS)
  if index is not None and path.suffix.lower() not in kinds:
    raise ValueError(
      f'file {path.name}, expected a slice ending in {", ".join(kinds)}'
    )
  if index is None and path.suffix.lower() in kinds:
    raise ValueError(f'file {path.name}, which needs the number of its slice')
  ends = {name: _pair_of_numbers(row, name) for name in ('window', 'range')}
  if ends['range'] and path.suffix.lower() in PICTURES:
    raise ValueError('range, which is for NPY files and volumes')
  given = row.get('crop')
  if given not in (None, '', *CROPS) or (given and index is None):
    raise ValueError(f'crop {given!r}, expected source or target of a slice')
  if given is None:
    given = '' if index is None else crop
  key = row['route'], str(row['case']), index
  return key, OutputFile(path, where, **ends, crop=given)


def _pair_of_numbers(
  row: Mapping[str, Any], name: str
) -> tuple[float, float] | None:
  if row.get(name) is None:
    return None
  low, high = map(float, row[name])
  if not (np.isfinite([low, high]).all() and low < high):
    raise ValueError(f'{name} {row[name]}, expected two numbers, low first')
  return low, high


def with_outputs(
  path: Path,
  pairs: Sequence[RoutePair],
  files: Mapping[Key, OutputFile],
  *,
  partial: bool,
) -> list[RoutePair]:
  """The pairs with the slices that have an output.

  Args:
    path: the folder or table, for messages.
    pairs: the pairs to score.
    files: result of `find_outputs`.
    partial: leave slices without an output out, instead of refusing them.

  Raises:
    OutputError: an output is missing, all of them if `partial`.
  """
  kept, missing = [], []
  for pair in pairs:
    route, case = pair.route.name, pair.case.id
    if (route, case, None) in files:
      kept.append(pair)
      continue
    found = [(route, case, i) in files for i in pair.indices.tolist()]
    if any(found):
      kept.append(dataclasses.replace(pair, indices=pair.indices[found]))
    missing += [
      (route, case, i)
      for i, exists in zip(pair.indices.tolist(), found, strict=True)
      if not exists
    ]
  if missing and not (partial and kept):
    total = sum(len(pair.indices) for pair in pairs)
    raise OutputError(
      f'{path}: has no output {output_name(*missing[0])}; {len(missing)} of '
      f'{total} slices are missing. Add them, repeat the --routes and --slices '
      'of the export, or score the others with --partial.'
    )
  return kept
