"""The slice store: prepared volumes on TensorStore, and their manifest.

    STORE/settings.json                settings of `prepare`
    STORE/volumes/<case>/<modality>/   zarr3, uint16 [z, h, w], sharded
    STORE/volumes/<case>/mask/         zarr3, uint8 [z, h, w]
    STORE/cases/<case>.json            written when the case is complete
    STORE/skipped/<case>.json          the reason why a case cannot be used
    STORE/manifest.jsonl               one line per case, when all are complete
    STORE/store.json                   written last: the store is finished

A case is written without its split: splits are drawn when all cases are written
or skipped, and the manifest holds them. `<case>` is the id, or a name made from
it (`store_files.case_key`).

A slice is a chunk and a volume a shard, so reading a slice is one small read,
also from `gs://`. Every JSON file is written atomically. A store without
`store.json` cannot be opened, but `prepare` resumes it.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorstore as ts
from jaxtyping import Bool, Float

from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.modalities import Modality
from synermedgen_jax.slices.case import Case
from synermedgen_jax.slices.framing import SliceSpec
from synermedgen_jax.slices.store_files import (
  CONTEXT,
  StoreError,
  StoreFiles,
  case_key,
  difference,
  to_json_line,
)

VERSION = 3
_LEVELS = 65535  # largest uint16
_CACHE_BYTES = 512 * 2**20
_MASK = 'mask'


class StoreWriter:
  """Writes a store; several processes may write different cases at once."""

  def __init__(self, path: str, settings: Mapping[str, Any]):
    """Starts a store, or resumes one that was started with equal settings.

    Args:
      path: directory, or an address such as gs://BUCKET/STORE.
      settings: JSON values that determine the cases.

    Raises:
      StoreError: the directory has other files, or a store with another version
        or other settings.
    """
    self.path = path
    self._files = StoreFiles(path)
    wanted = json.loads(to_json_line({'version': VERSION, **settings}))
    stored = self._files.read_json('settings.json')
    if stored is None and self._files.occupied():
      # Another part may have started the store: settings are written first.
      stored = self._files.read_json('settings.json')
      if stored is None:
        raise StoreError(
          f'{path}: is not empty and not a slice store; choose another --store.'
        )
    if stored is None:
      self._files.write('settings.json', to_json_line(wanted))
      stored = self._files.read_json('settings.json')
    if self.finished and 'sources' not in stored:
      wanted.pop('sources', None)  # finished by an earlier version
    if stored != wanted:
      raise StoreError(
        f'{path}: was started with other settings '
        f'({difference(stored, wanted)}); choose another --store or delete it.'
      )

  @property
  def finished(self) -> bool:
    """Whether all cases and the manifest are written."""
    return self._files.read('store.json') is not None

  def check_splits(self, splits: Mapping[str, Any]) -> None:
    """Checks that a finished store was finished with these settings of splits.

    Raises:
      StoreError: the settings differ; the message names the difference.
    """
    stored = (self._files.read_json('store.json') or {}).get('splits', {})
    wanted = json.loads(to_json_line(splits))
    if stored != wanted:
      raise StoreError(
        f'{self.path}: was finished with other splits '
        f'({difference(stored, wanted)}); choose another --store or delete it.'
      )

  def done(self, ids: Iterable[str]) -> set[str]:
    """The cases that are complete."""
    names = self._files.names('cases')
    return {case_id for case_id in ids if case_key(case_id) in names}

  def skipped(self, ids: Iterable[str]) -> set[str]:
    """The cases that cannot be used."""
    names = self._files.names('skipped')
    return {case_id for case_id in ids if case_key(case_id) in names}

  def write_case(
    self,
    case: Case,
    volumes: Mapping[Modality, Float[np.ndarray, 'z h w']],
    mask: Bool[np.ndarray, 'z h w'],
  ) -> None:
    """Writes a case; its JSON file is written last.

    Args:
      case: manifest line of the case; its split is not written.
      volumes: modality -> slices in [-1, 1].
      mask: body voxels that every modality covers.
    """
    for modality, volume in volumes.items():
      levels = np.round((np.clip(volume, -1, 1) + 1) / 2 * _LEVELS)
      self._write_array(case, modality.value, levels.astype(np.uint16))
    self._write_array(case, _MASK, mask.astype(np.uint8))
    row = {k: v for k, v in case.to_json().items() if k != 'split'}
    key = f'{case_key(case.id)}.json'
    self._files.write(f'cases/{key}', to_json_line(row))
    self._files.delete(f'skipped/{key}')  # of an earlier attempt

  def skip_case(self, case_id: str, reason: str) -> None:
    """Records that a case cannot be used, and why."""
    row = {'id': case_id, 'reason': reason}
    key = f'skipped/{case_key(case_id)}.json'
    self._files.write(key, to_json_line(row))

  def read_cases(self, ids: Iterable[str]) -> list[Case]:
    """The complete cases of these ids, sorted by id, without their splits.

    Raises:
      StoreError: a case is incomplete.
    """
    ids = sorted(ids)
    keys = [f'cases/{case_key(case_id)}.json' for case_id in ids]
    rows = self._files.read_many_json(keys)
    for case_id, row in zip(ids, rows, strict=True):
      if row is None:
        raise StoreError(f'{self.path}: case {case_id} is incomplete.')
    return [
      _parse_case({**row, 'split': ''}, f'{self.path}/{key}')
      for key, row in zip(keys, rows, strict=True)
    ]

  def _write_array(self, case: Case, name: str, data: np.ndarray) -> None:
    spec = self._files.array(f'volumes/{case_key(case.id)}/{name}')
    inner = {
      'chunk_shape': [1, *data.shape[1:]],
      'codecs': [
        {'name': 'bytes', 'configuration': {'endian': 'little'}},
        {'name': 'zstd', 'configuration': {'level': 3}},
      ],
    }
    spec['metadata'] = {
      'shape': list(data.shape),
      'chunk_grid': {
        'name': 'regular',
        'configuration': {'chunk_shape': list(data.shape)},
      },
      'data_type': str(data.dtype),
      'codecs': [{'name': 'sharding_indexed', 'configuration': inner}],
    }
    # Black slices are written too, so that a missing chunk is an error.
    spec['store_data_equal_to_fill_value'] = True
    try:
      array = ts.open(
        spec, context=CONTEXT, create=True, delete_existing=True
      ).result()
      array.write(data).result()
    except (ValueError, OSError) as error:
      raise StoreError(
        f'{self.path}: case {case.id!r}, {name}: cannot be written '
        f'({str(error)[:200]}).'
      ) from None

  def finish(
    self,
    splits: Mapping[str, str],
    settings: Mapping[str, Any] | None = None,
  ) -> None:
    """Writes the manifest and marks the store as finished.

    Args:
      splits: id -> split, for all cases of the store.
      settings: JSON values that determine the splits, for `check_splits`.

    Raises:
      StoreError: a case is incomplete.
    """
    cases = self.read_cases(splits)
    rows = [
      to_json_line({**case.to_json(), 'split': splits[case.id]})
      for case in cases
    ]
    self._files.write('manifest.jsonl', b''.join(rows))
    finished = {
      'version': VERSION,
      'cases': len(rows),
      'splits': dict(settings or {}),
    }
    self._files.write('store.json', to_json_line(finished))


def _parse_line(line: bytes) -> Any:
  try:
    return json.loads(line)
  except ValueError:
    return None  # `_parse_case` reports it


def _parse_case(row: Mapping[str, Any], where: str) -> Case:
  try:
    return Case.from_json(row)
  except UserError as error:  # a modality or region that is not registered
    raise StoreError(f'{where}: {error}') from None
  except (KeyError, TypeError, ValueError) as error:
    raise StoreError(
      f'{where}: is damaged ({error!r}); prepare the store again.'
    ) from None


class SliceStore:
  """A finished store, open for reading; threads may share it.

  Attributes:
    path: directory or address.
    slices: canvas, plane, frame and windows of the slices.
    cases: the manifest, sorted by id.
    layouts: names of the layouts that `prepare` read, such as 'phantom'.
  """

  def __init__(
    self,
    files: StoreFiles,
    settings: Mapping[str, Any],
    cases: tuple[Case, ...],
  ):
    self.path = files.path
    self.slices = SliceSpec.from_json(settings)
    self.cases = cases
    self.layouts = tuple(filter(None, settings.get('dataset', '').split(',')))
    self._files = files
    self._by_id = {case.id: case for case in cases}
    self._context = ts.Context(
      {'cache_pool': {'total_bytes_limit': _CACHE_BYTES}}, parent=CONTEXT
    )
    self._array = functools.lru_cache(maxsize=4096)(self._open)

  @classmethod
  def open(cls, path: str) -> SliceStore:
    """Opens a finished store.

    Raises:
      StoreError: the store is missing or unfinished, or its version differs.
    """
    files = StoreFiles(str(path))
    finished = files.read_json('store.json')
    if finished is None:
      started = files.read('settings.json') is not None
      raise StoreError(
        f'{path}: is a store that was not finished; run the same prepare '
        'command again.'
        if started
        else f'{path}: holds no slice store; make one with '
        'python -m synermedgen_jax.prepare.'
      )
    if finished.get('version') != VERSION:
      raise StoreError(
        f'{path}: has store version {finished.get("version")}, this code reads '
        f'version {VERSION}; prepare it again.'
      )
    lines = (files.read('manifest.jsonl') or b'').splitlines()
    if len(lines) != finished.get('cases'):
      raise StoreError(
        f'{path}/manifest.jsonl: has {len(lines)} of {finished.get("cases")} '
        'cases; prepare the store again.'
      )
    cases = tuple(
      _parse_case(_parse_line(line), f'{path}/manifest.jsonl:{number}')
      for number, line in enumerate(lines, 1)
    )
    return cls(files, files.read_json('settings.json'), cases)

  @functools.cached_property
  def fingerprint(self) -> str:
    """12 hexadecimal digits, equal for stores with equal cases and grids.

    The paths of the store and of the source volumes have no effect.
    """
    rows = [case.to_json() for case in self.cases]
    for row in rows:
      for modality in row['modalities'].values():
        del modality['source']
    content = [self.slices.to_json(), rows]
    return hashlib.sha256(to_json_line(content)).hexdigest()[:12]

  def case(self, case_id: str) -> Case:
    """Returns the case of an id; raises StoreError if there is none."""
    try:
      return self._by_id[case_id]
    except KeyError:
      raise StoreError(f'{self.path}: has no case {case_id!r}.') from None

  def split(self, split: str) -> tuple[Case, ...]:
    """Cases of a split, sorted by id; may be empty."""
    return tuple(case for case in self.cases if case.split == split)

  def read_slice(
    self, case_id: str, modality: Modality, index: int
  ) -> Float[np.ndarray, 'h w']:
    """Reads one slice, float32 in [-1, 1]; raises StoreError if it cannot."""
    return _to_float(self._read(case_id, modality.value, index))

  def read_slices(
    self, slices: Sequence[tuple[str, Modality, int]]
  ) -> list[Float[np.ndarray, 'h w']]:
    """Reads slices at once, in less time than one by one.

    Args:
      slices: id of the case, modality and index of each slice.

    Returns:
      float32 in [-1, 1].

    Raises:
      StoreError: a slice cannot be read.
    """
    reads = []
    with ts.Batch() as batch:
      for case_id, modality, index in slices:
        with self._named(case_id, modality.value):
          array = self._array(case_id, modality.value)
          reads.append(array[index].read(batch=batch))
    results = []
    for (case_id, modality, _), read in zip(slices, reads, strict=True):
      with self._named(case_id, modality.value):
        results.append(_to_float(read.result()))
    return results

  def read_volume(
    self, case_id: str, modality: Modality
  ) -> Float[np.ndarray, 'z h w']:
    """Reads all slices, float32 in [-1, 1]; raises StoreError if it cannot."""
    return _to_float(self._read(case_id, modality.value, slice(None)))

  def read_mask(self, case_id: str) -> Bool[np.ndarray, 'z h w']:
    """Reads the mask of body voxels that every modality covers."""
    return self._read(case_id, _MASK, slice(None)) > 0

  def _read(self, case_id: str, name: str, index) -> np.ndarray:
    with self._named(case_id, name):
      return self._array(case_id, name)[index].read().result()

  @contextlib.contextmanager
  def _named(self, case_id: str, name: str) -> Iterator[None]:
    """Turns errors of TensorStore into a StoreError that names the array."""
    try:
      yield
    except (ValueError, OSError) as error:
      raise StoreError(
        f'{self.path}: case {case_id!r}, {name}: cannot be read '
        f'({str(error)[:200]}); prepare the store again.'
      ) from None

  def _open(self, case_id: str, name: str) -> ts.TensorStore:
    spec = self._files.array(f'volumes/{case_key(case_id)}/{name}')
    spec['fill_missing_data_reads'] = False
    try:
      return ts.open(
        spec,
        open=True,
        read=True,
        context=self._context,
        recheck_cached_data=False,
      ).result()
    except ValueError:
      raise StoreError(
        f'{self.path}: case {case_id!r} has no array {name!r}.'
      ) from None


def _to_float(levels: np.ndarray) -> np.ndarray:
  return levels.astype(np.float32) * np.float32(2 / _LEVELS) - np.float32(1)
