"""Keys and values of a slice store: a directory or a bucket on TensorStore."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorstore as ts

from synermedgen_jax.core.errors import UserError

# Shared by all stores, so that `memory://` is one memory.
CONTEXT = ts.Context({'memory_key_value_store': {}})
_LONGEST = 100  # characters of a name; file systems take 255 bytes


class StoreError(UserError):
  """A store that cannot be used; one line naming the store and the remedy."""


def to_json_line(value: Any) -> bytes:
  """JSON with sorted keys and a final newline: equal values, equal bytes."""
  return (json.dumps(value, sort_keys=True) + '\n').encode()


def difference(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
  """The keys whose values differ, with both values, shortened."""
  old, new = _differing(stored, wanted)
  return ', '.join(
    f'{key}: {reprlib.repr(old.get(key))} in the store, '
    f'{reprlib.repr(new.get(key))} now'
    for key in sorted({*old, *new})
  )


def _differing(a: Any, b: Any) -> tuple[Any, Any]:
  """Two values; of two mappings, the entries in which they differ."""
  if not (isinstance(a, Mapping) and isinstance(b, Mapping)):
    return a, b
  pairs = {
    key: _differing(a.get(key), b.get(key))
    for key in {*a, *b}
    if a.get(key) != b.get(key)
  }
  return (
    {key: pair[0] for key, pair in pairs.items() if key in a},
    {key: pair[1] for key, pair in pairs.items() if key in b},
  )


def case_key(case_id: str) -> str:
  """Name of a case in keys: lower-case ASCII letters, digits, `.`, `_`, `-`.

  An id of other characters is followed by 8 digits of its hash, so that
  different ids have different names, also where a file system does not
  distinguish upper from lower case.
  """
  plain = re.sub(r'[^a-z0-9._-]', '_', case_id.lower())[:_LONGEST]
  # TensorStore refuses names that end like its lock files.
  refused = plain.endswith(('.', '.__lock')) or not plain[:1].isalnum()
  if plain == case_id and not refused:
    return plain
  digest = hashlib.sha256(case_id.encode('utf-8', 'surrogatepass'))
  return f'{plain.lstrip(".")}-{digest.hexdigest()[:8]}'


def check_folder(path: str | Path, flag: str) -> None:
  """Checks that files can be written below a path, without creating it.

  Args:
    path: a folder, which need not exist, or an address, which is not checked.
    flag: flag that names it, for the message.

  Raises:
    StoreError: the path or one of its parents is a file or cannot be written.
  """
  if '://' in str(path):
    return
  folder = Path(path).absolute()
  try:
    folder = _nearest_existing(folder)
  except (OSError, ValueError) as error:  # such as a name that is too long
    reason = getattr(error, 'strerror', None) or str(error)
  else:
    if not folder.is_dir():
      kind = 'a file' if folder.exists() else 'a broken link'
      name = 'it' if folder == Path(path).absolute() else folder
      reason = f'{name} is {kind}, not a folder'
    elif not os.access(folder, os.W_OK | os.X_OK):
      reason = f'the folder {folder} cannot be written'
    else:
      return
  raise StoreError(f'{path}: {reason}; choose another {flag}.')


def _nearest_existing(path: Path) -> Path:
  """The path itself, or the first of its parents that exists."""
  while True:
    try:
      os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
      path = path.parent
    else:
      return path


class StoreFiles:
  """Keys and values below a directory or a TensorStore address.

  Every method raises StoreError if the storage fails.
  """

  def __init__(self, path: str):
    self.path = path.rstrip('/') or path
    if '://' not in self.path:
      self.spec = {'driver': 'file', 'path': f'{self.path.rstrip("/")}/'}
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
    return ts.KvStore.open(self.spec, context=CONTEXT).result()

  def _failed(self, key: str, what: str, error: Exception) -> StoreError:
    reason = ' '.join(str(error).split())[:200]
    return StoreError(f'{self.path}/{key}: cannot be {what} ({reason}).')

  def read(self, key: str) -> bytes | None:
    """The value of a key, None without one."""
    return self._value(key, self._kv.read(key))

  def read_json(self, key: str) -> dict[str, Any] | None:
    """The JSON object of a key, None without one."""
    return self._parse(key, self.read(key))

  def read_many_json(self, keys: Sequence[str]) -> list[dict | None]:
    """`read_json` of many keys, with the requests in parallel."""
    futures = [self._kv.read(key) for key in keys]
    return [
      self._parse(key, self._value(key, future))
      for key, future in zip(keys, futures, strict=True)
    ]

  def _value(self, key: str, future: ts.Future) -> bytes | None:
    try:
      result = future.result()
    except (ValueError, OSError) as error:
      raise self._failed(key, 'read', error) from None
    return result.value if result.state == 'value' else None

  def _parse(self, key: str, data: bytes | None) -> dict[str, Any] | None:
    if data is None:
      return None
    try:
      value = json.loads(data)
    except ValueError:
      value = None
    if not isinstance(value, dict):
      raise StoreError(f'{self.path}/{key}: is not valid JSON.')
    return value

  def write(self, key: str, data: bytes) -> None:
    """Writes a value atomically."""
    try:
      self._kv.write(key, data).result()
    except (ValueError, OSError) as error:
      raise self._failed(key, 'written', error) from None

  def delete(self, key: str) -> None:
    """Deletes a key, if it exists."""
    try:
      self._kv.delete_range(ts.KvStore.KeyRange(key, f'{key}\0')).result()
    except (ValueError, OSError) as error:
      raise self._failed(key, 'deleted', error) from None

  def names(self, folder: str) -> set[str]:
    """Names of the JSON files in a folder, without the suffix."""
    prefix = f'{folder}/'
    try:  # '0' follows '/', so the range holds every key below the folder
      keys = self._kv.list(ts.KvStore.KeyRange(prefix, f'{folder}0')).result()
    except (ValueError, OSError) as error:
      raise self._failed(folder, 'listed', error) from None
    return {
      key.decode()[len(prefix) : -len('.json')]
      for key in keys
      if key.endswith(b'.json')
    }

  def occupied(self) -> bool:
    """Whether there is anything beside the settings of a store."""
    if self.spec['driver'] == 'file':
      try:
        with os.scandir(self.path) as entries:
          return any(not e.name.startswith('settings.json') for e in entries)
      except FileNotFoundError:
        return False
      except OSError as error:
        raise self._failed('', 'read', error) from None
    try:
      keys = self._kv.list().result()
    except (ValueError, OSError) as error:
      raise self._failed('', 'listed', error) from None
    return any(not key.startswith(b'settings.json') for key in keys)

  def array(self, key: str) -> dict[str, Any]:
    """TensorStore's spec of the array `key`."""
    return {
      'driver': 'zarr3',
      'kvstore': {**self.spec, 'path': f'{self.spec["path"]}{key}/'},
    }
