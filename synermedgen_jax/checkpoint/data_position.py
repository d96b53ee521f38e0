"""Position of a run's data iterator, as an item of a checkpoint."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils.epath import Path

from synermedgen_jax.checkpoint.checksums import json_checksum

_LAYOUT = 'layout.json'
# Values of keys that earlier versions did not record.
_BEFORE = {
  'route_weights': [],
  'max_sources': 1,
  'subjects': 1.0,
  'streams_shuffled': False,
}


class DataHandler(ocp.CheckpointHandler):
  """Writes the position of each stream to a JSON file of its own.

  A process writes its own streams, so a resumed run may have another number of
  processes. Every process reads the files of all streams, so that a damaged or
  missing file is an error in every process.

  A file holds a JSON list: the value and its checksum. Earlier versions wrote
  the value, an object, alone.
  """

  def save(self, directory: Path, args: DataSave) -> None:
    for stream, state in args.state.items():
      _write(directory / f'stream_{stream}.json', state)
    if jax.process_index() == 0:
      _write(directory / _LAYOUT, args.layout)

  def restore(self, directory: Path, args: DataRestore) -> None:
    saved = _BEFORE | _read(directory / _LAYOUT)
    for key, value in args.item.layout.items():
      # Checkpoints of earlier versions lack some keys.
      if saved.get(key, value) == value:
        continue
      # These two are no keys of the config.
      if key == 'bagel_contents':
        raise ValueError(
          f'the files of config.bagel_files were {saved[key]}, and are {value}'
        )
      if key == 'streams_shuffled':
        raise ValueError(
          'it is of an earlier version, which dealt the examples out to '
          f'config.streams={saved["streams"]} in another order'
        )
      raise ValueError(
        f'its data come from config.{key} {saved[key]}, which is {value} now'
      )
    args.item.set_state(
      {
        str(stream): _read(directory / f'stream_{stream}.json')
        for stream in range(saved['streams'])
      }
    )


def _write(path: Path, value: Any) -> None:
  path.write_text(json.dumps([value, json_checksum(value)]))


def _read(path: Path) -> Any:
  """A value that `_write`, or an earlier version, wrote.

  Raises:
    ValueError: the file is missing or damaged; the message names it.
  """
  name = f'{path.parent.name}/{path.name}'
  try:
    read = json.loads(path.read_text())
  except FileNotFoundError:
    raise ValueError(f'{name} is missing') from None
  if not isinstance(read, list):
    return read
  value, checksum = read
  if json_checksum(value) != checksum:
    raise ValueError(f'{name} is not what was saved: bits have changed')
  return value


@ocp.args.register_with_handler(DataHandler, for_save=True)
@dataclasses.dataclass
class DataSave(ocp.args.CheckpointArgs):
  """Position of the data.

  Attributes:
    state: position in each stream of this process.
    layout: settings that determine the streams (`BatchIterator.layout`).
  """

  state: Mapping[str, Any]
  layout: Mapping[str, Any]

  @classmethod
  def of(cls, iterator: Any) -> DataSave:
    """Copies the position of a `BatchIterator`, which may then advance."""
    return cls(copy.deepcopy(iterator.get_state()), iterator.layout)


@ocp.args.register_with_handler(DataHandler, for_restore=True)
@dataclasses.dataclass
class DataRestore(ocp.args.CheckpointArgs):
  item: Any
