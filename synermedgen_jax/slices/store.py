"""The slice store: prepared volumes on TensorStore, and their manifest.

    STORE/settings.json                settings of `prepare`
    STORE/volumes/<case>/<modality>/   zarr3, uint16 [z, h, w], sharded
    STORE/volumes/<case>/mask/         zarr3, uint8 [z, h, w]
    STORE/cases/<case>.json            written when the case is complete
    STORE/manifest.jsonl               one line per case, when all are complete
    STORE/store.json                   written last: the store is finished

A slice is a chunk and a volume a shard, so reading a slice is one small read,
also from `gs://`. Every JSON file is written atomically. A store without
`store.json` cannot be opened, but `prepare` resumes it.
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
_LEVELS = 65535  # largest uint16
_CACHE_BYTES = 512 * 2**20
_MASK = 'mask'
# Shared by all stores, so that `memory://` is one memory.
_CONTEXT = ts.Context({'memory_key_value_store': {}})


class StoreError(UserError):
  """A store that cannot be used; one line naming the store and the remedy."""


@dataclasses.dataclass(frozen=True)
class Case:
  """One line of the manifest: one subject's volumes on one slice grid.

  Attributes:
    id: name of the case in the store.
    dataset: name of the dataset.
    subject: name of the subject, unique within the dataset.
    region: body region, which selects the routes.
    split: 'train', 'val', 'test' or 'holdout'.
    modalities: modality -> window that is mapped to [-1, 1].
    sources: modality -> file that it was read from.
    shape: (slices, canvas, canvas).
    affine: rows of the (4, 4) matrix from (column, row, slice) to RAS+ mm.
    plane: slice plane, 'axial', 'coronal' or 'sagittal'.
    usable: slices that show the body in every modality.
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
    """Routes that this case can serve, in both directions."""
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
  """Keys and values below a directory or a TensorStore address."""

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
    result = self._kv.read(key).result()
    return result.value if result.state == 'value' else None

  def read_json(self, key: str) -> Any:
    data = self.read(key)
    if data is None:
      return None
    try:
      return json.loads(data)
    except ValueError:
      raise StoreError(f'{self.path}/{key}: is not valid JSON.') from None

  def write(self, key: str, data: bytes) -> None:
    """Writes a value atomically."""
    self._kv.write(key, data).result()

  def keys(self, prefix: str) -> list[str]:
    keys = self._kv.list(ts.KvStore.KeyRange(prefix, f'{prefix}\x7f'))
    return sorted(key.decode() for key in keys.result())

  def array(self, key: str) -> dict[str, Any]:
    """TensorStore's spec of the array `key`."""
    return {
      'driver': 'zarr3',
      'kvstore': {**self.spec, 'path': f'{self.spec["path"]}{key}/'},
    }


def _dump(value: Any) -> bytes:
  return (json.dumps(value, sort_keys=True) + '\n').encode()


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
    self._files = _Files(path)
    wanted = json.loads(_dump({'version': VERSION, **settings}))
    stored = self._files.read_json('settings.json')
    if stored is None:
      if self._files.keys(''):
        raise StoreError(
          f'{path}: is not empty and not a slice store; choose another --store.'
        )
      self._files.write('settings.json', _dump(wanted))
    elif stored != wanted:
      differ = sorted(
        key for key in {*stored, *wanted} if stored.get(key) != wanted.get(key)
      )
      raise StoreError(
        f'{path}: was started with other settings ('
        + ', '.join(
          f'{k}: {reprlib.repr(stored.get(k))} in the store, '
          f'{reprlib.repr(wanted.get(k))} now'
          for k in differ
        )
        + '); choose another --store or delete it.'
      )

  @property
  def finished(self) -> bool:
    """Whether all cases and the manifest are written."""
    return self._files.read('store.json') is not None

  def done(self) -> set[str]:
    """Ids of the complete cases."""
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
    """Writes a case; its JSON file is written last.

    Args:
      case: manifest line of the case.
      volumes: modality -> slices in [-1, 1].
      mask: body voxels that every modality covers.
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
    # Black slices are written too, so that a missing chunk is an error.
    spec['store_data_equal_to_fill_value'] = True
    array = ts.open(
      spec, context=_CONTEXT, create=True, delete_existing=True
    ).result()
    array.write(data).result()

  def finish(self, ids: Iterable[str]) -> None:
    """Writes the manifest and marks the store as finished.

    Args:
      ids: ids of all its cases.

    Raises:
      StoreError: a case is incomplete.
    """
    rows = []
    for case in sorted(ids):
      row = self._files.read(f'cases/{case}.json')
      if row is None:
        raise StoreError(f'{self.path}: case {case} is incomplete.')
      rows.append(row)
    self._files.write('manifest.jsonl', b''.join(rows))
    self._files.write(
      'store.json', _dump({'version': VERSION, 'cases': len(rows)})
    )


class SliceStore:
  """A finished store, open for reading; threads may share it.

  Attributes:
    path: directory or address.
    slices: canvas, plane, frame and windows of the slices.
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
      StoreError: the store is missing or unfinished, or its version differs.
    """
    files = _Files(str(path))
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
    """12 hexadecimal digits, equal for stores with equal cases and grids.

    The paths of the store and of the source volumes have no effect.
    """
    rows = [case.to_json() for case in self.cases]
    for row in rows:
      for modality in row['modalities'].values():
        del modality['source']
    content = [self.slices.to_json(), rows]
    return hashlib.sha256(_dump(content)).hexdigest()[:12]

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

  def read_volume(
    self, case_id: str, modality: Modality
  ) -> Float[np.ndarray, 'z h w']:
    """Reads all slices, float32 in [-1, 1]; raises StoreError if it cannot."""
    return _to_float(self._read(case_id, modality.value, slice(None)))

  def read_mask(self, case_id: str) -> Bool[np.ndarray, 'z h w']:
    """Reads the mask of body voxels that every modality covers."""
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
