"""The slice store: prepared volumes on TensorStore, and their manifest.

    STORE/settings.json                what the store is made with
    STORE/volumes/<case>/<modality>/   zarr3, uint16 [z, h, w], sharded
    STORE/volumes/<case>/mask/         zarr3, uint8 [z, h, w]
    STORE/cases/<case>.json            appears when the case is whole
    STORE/manifest.jsonl               one line a case, when all are
    STORE/store.json                   last of all: the store is finished

A slice is a chunk and a volume a shard, so a slice is one small read also from
`gs://`. Every JSON file is written in one piece. A store without `store.json`
is not read; preparing goes on where it stopped.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tensorstore as ts
from jaxtyping import Bool, Float

from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.modalities import (
  Modality,
  Region,
  Route,
  routes_between,
)
from synermedgen_jax.slices.framing import SliceSpec
from synermedgen_jax.slices.windows import Window

VERSION = 2
_LEVELS = 65535  # of uint16
_CACHE_BYTES = 512 * 2**20
_MASK = 'mask'
# One for all, so that `memory://` is one memory.
_CONTEXT = ts.Context({'memory_key_value_store': {}})


class StoreError(UserError):
  """A store that cannot be used; one line that names it and says what to do."""


@dataclasses.dataclass(frozen=True)
class Case:
  """One line of the manifest: one subject's volumes on one slice grid.

  Attributes:
    id: its name in the store.
    dataset: where it is from.
    subject: unique within the dataset.
    region: which routes are meant.
    split: 'train', 'val', 'test' or 'holdout'.
    modalities: the window that spans [-1, 1], per modality.
    sources: the files they were read from.
    shape: (slices, canvas, canvas).
    affine: (4, 4) of (column, row, slice) to RAS+ mm, row by row.
    plane: slice plane, 'axial', 'coronal' or 'sagittal'.
    usable: the slices that show the body in every modality.
  """

  id: str
  dataset: str
  subject: str
  region: Region
  split: str
  modalities: Mapping[Modality, Window]
  sources: Mapping[Modality, str]
  shape: tuple[int, int, int]
  affine: tuple[tuple[float, ...], ...]
  plane: str
  usable: range

  @functools.cached_property
  def routes(self) -> tuple[Route, ...]:
    """The routes that this case can serve, both directions."""
    return routes_between(self.region, frozenset(self.modalities))

  def to_json(self) -> dict[str, Any]:
    return {
      'id': self.id,
      'dataset': self.dataset,
      'subject': self.subject,
      'region': self.region.value,
      'split': self.split,
      'modalities': {
        modality.value: {
          'low': window.low,
          'high': window.high,
          'unit': modality.unit,
          'source': self.sources[modality],
        }
        for modality, window in self.modalities.items()
      },
      'shape': list(self.shape),
      'affine': [list(row) for row in self.affine],
      'plane': self.plane,
      'usable': [self.usable.start, self.usable.stop],
    }

  @classmethod
  def from_json(cls, row: Mapping[str, Any]) -> Case:
    stored = {Modality(name): m for name, m in row['modalities'].items()}
    return cls(
      id=row['id'],
      dataset=row['dataset'],
      subject=row['subject'],
      region=Region(row['region']),
      split=row['split'],
      modalities={m: Window(v['low'], v['high']) for m, v in stored.items()},
      sources={m: v['source'] for m, v in stored.items()},
      shape=tuple(row['shape']),
      affine=tuple(map(tuple, row['affine'])),
      plane=row['plane'],
      usable=range(*row['usable']),
    )


class _Files:
  """Keys and values under a directory, or an address TensorStore knows."""

  def __init__(self, path: str):
    self.path = path.rstrip('/')
    if '://' not in self.path:
      self.spec = {'driver': 'file', 'path': f'{self.path}/'}
      return
    try:
      self.spec = ts.KvStore.Spec(f'{self.path}/').to_json()
    except ValueError:
      raise StoreError(
        f'{path}: a store is a local path, gs://BUCKET/PATH or s3://BUCKET/'
        'PATH.'
      ) from None

  @functools.cached_property
  def _kv(self) -> ts.KvStore:
    return ts.KvStore.open(self.spec, context=_CONTEXT).result()

  def read(self, key: str) -> bytes | None:
    found = self._kv.read(key).result()
    return found.value if found.state == 'value' else None

  def read_json(self, key: str) -> Any:
    data = self.read(key)
    if data is None:
      return None
    try:
      return json.loads(data)
    except ValueError:
      raise StoreError(f'{self.path}/{key}: is not valid JSON.') from None

  def write(self, key: str, data: bytes) -> None:
    """The value is there whole or not at all."""
    self._kv.write(key, data).result()

  def keys(self, prefix: str) -> list[str]:
    found = self._kv.list(ts.KvStore.KeyRange(prefix, f'{prefix}\x7f'))
    return sorted(key.decode() for key in found.result())

  def array(self, key: str) -> dict[str, Any]:
    """TensorStore's spec of the array `key`."""
    return {
      'driver': 'zarr3',
      'kvstore': {**self.spec, 'path': f'{self.spec["path"]}{key}/'},
    }


def _dump(value: Any) -> bytes:
  return (json.dumps(value, sort_keys=True) + '\n').encode()


class StoreWriter:
  """Fills a store case by case; several processes may, each its own cases."""

  def __init__(self, path: str, settings: Mapping[str, Any]):
    """Begins a store, or goes on with one begun with the same settings.

    Args:
      path: directory or gs:// address.
      settings: JSON values that say how cases are made.

    Raises:
      StoreError: the store is of another version or of other settings.
    """
    self.path = path
    self._files = _Files(path)
    wanted = json.loads(_dump({'version': VERSION, **settings}))
    found = self._files.read_json('settings.json')
    if found is None:
      if self._files.keys(''):
        raise StoreError(
          f'{path}: is not empty and not a slice store; choose another --store.'
        )
      self._files.write('settings.json', _dump(wanted))
    elif found != wanted:
      differ = sorted(
        key for key in {*found, *wanted} if found.get(key) != wanted.get(key)
      )
      raise StoreError(
        f'{path}: was begun with other settings ('
        + ', '.join(
          f'{k}: {reprlib.repr(found.get(k))} there, '
          f'{reprlib.repr(wanted.get(k))} here'
          for k in differ
        )
        + '); choose another --store or delete it.'
      )

  @property
  def finished(self) -> bool:
    return self._files.read('store.json') is not None

  def done(self) -> set[str]:
    """Ids of the cases that are whole."""
    return {
      key.removeprefix('cases/').removesuffix('.json')
      for key in self._files.keys('cases/')
      if key.endswith('.json')
    }

  def write_case(
    self,
    case: Case,
    volumes: Mapping[Modality, Float[np.ndarray, 'z h w']],
    mask: Bool[np.ndarray, 'z h w'],
  ) -> None:
    """Writes a case; its JSON row comes last.

    Args:
      case: its manifest line.
      volumes: in [-1, 1], per modality.
      mask: the body, where every modality was measured.
    """
    for modality, volume in volumes.items():
      levels = np.round((np.clip(volume, -1, 1) + 1) / 2 * _LEVELS)
      self._write_array(case, modality.value, levels.astype(np.uint16))
    self._write_array(case, _MASK, mask.astype(np.uint8))
    self._files.write(f'cases/{case.id}.json', _dump(case.to_json()))

  def _write_array(self, case: Case, name: str, data: np.ndarray) -> None:
    spec = self._files.array(f'volumes/{case.id}/{name}')
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
    # Black slices are written too: a chunk that is not there was lost.
    spec['store_data_equal_to_fill_value'] = True
    array = ts.open(
      spec, context=_CONTEXT, create=True, delete_existing=True
    ).result()
    array.write(data).result()

  def finish(self, ids: Iterable[str]) -> None:
    """Writes the manifest and declares the store finished.

    Args:
      ids: of the cases that it holds, all of them whole.
    """
    rows = []
    for case in sorted(ids):
      row = self._files.read(f'cases/{case}.json')
      if row is None:
        raise StoreError(f'{self.path}: case {case} is not there yet.')
      rows.append(row)
    self._files.write('manifest.jsonl', b''.join(rows))
    self._files.write(
      'store.json', _dump({'version': VERSION, 'cases': len(rows)})
    )


class SliceStore:
  """A finished store, for reading; slices are shared by threads.

  Attributes:
    path: as opened.
    slices: how volumes became slices.
    cases: the manifest, sorted by id.
  """

  def __init__(
    self,
    files: _Files,
    settings: Mapping[str, Any],
    cases: tuple[Case, ...],
  ):
    self.path = files.path
    self.slices = SliceSpec.from_json(settings)
    self.cases = cases
    self._files = files
    self._by_id = {case.id: case for case in cases}
    self._context = ts.Context(
      {'cache_pool': {'total_bytes_limit': _CACHE_BYTES}}, parent=_CONTEXT
    )
    self._array = functools.lru_cache(maxsize=4096)(self._open)

  @classmethod
  def open(cls, path: str) -> SliceStore:
    """Opens a finished store.

    Raises:
      StoreError: it is missing, unfinished, or of another version.
    """
    files = _Files(str(path))
    finished = files.read_json('store.json')
    if finished is None:
      begun = files.read('settings.json') is not None
      raise StoreError(
        f'{path}: is a store that was not finished; run the same prepare '
        'command again.'
        if begun
        else f'{path}: holds no slice store; make one with '
        'python -m synermedgen_jax.prepare.'
      )
    if finished.get('version') != VERSION:
      raise StoreError(
        f'{path}: is a store of version {finished.get("version")}, this code '
        f'reads version {VERSION}; prepare it again.'
      )
    lines = (files.read('manifest.jsonl') or b'').decode().splitlines()
    if len(lines) != finished['cases']:
      raise StoreError(
        f'{path}/manifest.jsonl: has {len(lines)} of {finished["cases"]} '
        'cases; prepare the store again.'
      )
    cases = tuple(Case.from_json(json.loads(line)) for line in lines)
    return cls(files, files.read_json('settings.json'), cases)

  @functools.cached_property
  def fingerprint(self) -> str:
    """12 hexadecimal digits that stores of equal cases and grids share.

    Paths of the store and of the source volumes do not count.
    """
    rows = [case.to_json() for case in self.cases]
    for row in rows:
      for modality in row['modalities'].values():
        del modality['source']
    held = [self.slices.to_json(), rows]
    return hashlib.sha256(_dump(held)).hexdigest()[:12]

  def case(self, case_id: str) -> Case:
    try:
      return self._by_id[case_id]
    except KeyError:
      raise StoreError(f'{self.path}: has no case {case_id!r}.') from None

  def split(self, split: str) -> tuple[Case, ...]:
    """The cases of a split, which may be none."""
    return tuple(case for case in self.cases if case.split == split)

  def read_slice(
    self, case_id: str, modality: Modality, index: int
  ) -> Float[np.ndarray, 'h w']:
    """One slice in [-1, 1]."""
    return _to_float(self._read(case_id, modality.value, index))

  def read_volume(
    self, case_id: str, modality: Modality
  ) -> Float[np.ndarray, 'z h w']:
    """All slices in [-1, 1]."""
    return _to_float(self._read(case_id, modality.value, slice(None)))

  def read_mask(self, case_id: str) -> Bool[np.ndarray, 'z h w']:
    """Where the body is and every modality was measured."""
    return self._read(case_id, _MASK, slice(None)) > 0

  def _read(self, case_id: str, name: str, index) -> np.ndarray:
    try:
      return self._array(case_id, name)[index].read().result()
    except (ValueError, OSError) as error:
      raise StoreError(
        f'{self.path}: case {case_id!r}, {name}: cannot be read '
        f'({str(error)[:200]}); prepare the store again.'
      ) from None

  def _open(self, case_id: str, name: str) -> ts.TensorStore:
    spec = self._files.array(f'volumes/{case_id}/{name}')
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
