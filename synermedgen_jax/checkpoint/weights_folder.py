"""Weights folders: a model without the workdir of its run.

  model.json           the model's shape
  weights.safetensors  its parameters by name; the format holds no code
  config.json          the record of its run, without names of local files
  tokenizer/           files of its tokenizer, unless it is the project's
  README.md            the model card: origin, training and intended use
  SHA256SUMS           checksums of the files above, except the card

The first two make a weights folder, from which a run can start. With the
record of a run, it can synthesise too. `config.init_from` accepts a weights
folder, its address on the Hugging Face hub (hf://OWNER/NAME[@REVISION]), or a
run's workdir.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from synermedgen_jax.checkpoint.orbax_items import CheckpointError
from synermedgen_jax.core import files
from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.lazy_array import LazyArray
from synermedgen_jax.core.trees import flatten, unflatten
from synermedgen_jax.input import vocab_files
from synermedgen_jax.interop import hub
from synermedgen_jax.interop.tensor_files import read_tensors, write_tensors
from synermedgen_jax.models.bagel_config import BagelConfig
from synermedgen_jax.models.shape_json import model_from_json, model_to_json

TENSORS, SHAPE = 'weights.safetensors', 'model.json'
RECORD, CARD, SUMS = 'config.json', 'README.md', 'SHA256SUMS'
# All files that a weights folder can have.
FILES = (
  *(TENSORS, SHAPE, RECORD, CARD, SUMS),
  *(f'tokenizer/{name}' for name in vocab_files.FILES),
)


def holds_weights(folder: str | Path) -> bool:
  """Whether `folder` is a local weights folder, not a run's workdir."""
  return '://' not in str(folder) and (Path(folder) / TENSORS).is_file()


def local_folder(start: str | Path) -> str | Path:
  """The local folder of an address of the hub; other paths are returned.

  The files of a weights folder are downloaded, unless the cache of
  `huggingface_hub` holds them; other files of the repository are not.

  Raises:
    HubError: they cannot be downloaded, or the repository holds no weights
      folder.
  """
  return _downloaded(start)[0] if hub.is_address(start) else start


def pinned(start: str) -> str:
  """An address of the hub with its commit; other paths are returned.

  Raises:
    HubError: as of `local_folder`.
  """
  return str(_downloaded(start)[1]) if hub.is_address(start) else start


def _downloaded(address: str | Path) -> tuple[Path, hub.Address]:
  folder, commit = hub.download(str(address), FILES)
  for name in (TENSORS, SHAPE):
    if not (folder / name).is_file():
      raise hub.HubError(
        f'{address}: has no {name}, so it is no weights folder of '
        'ship_weights; name another repository or revision.'
      )
  return folder, commit


def write_checksums(folder: Path) -> None:
  """Writes SHA256SUMS of all files but the card, as `sha256sum` reads it."""
  lines = [f'{_sha256(folder / n)}  {n}\n' for n in _summed(folder)]
  files.write_text(folder / SUMS, ''.join(lines))


def _summed(folder: Path) -> list[str]:
  """The files of a folder that SHA256SUMS lists."""
  names = (n for n in FILES if n not in (CARD, SUMS))
  return [name for name in names if (folder / name).is_file()]


def check_files(folder: str | Path) -> None:
  """Compares the files with SHA256SUMS, if the folder has it.

  Raises:
    CheckpointError: a file is missing, differs or is not listed, or SHA256SUMS
      is malformed.
  """
  path = Path(folder) / SUMS
  if not path.is_file():
    return
  listed = set()
  for line in path.read_text('utf-8', errors='replace').splitlines():
    match = re.fullmatch(r'([0-9a-f]{64})  (.+)', line)
    if not match or match[2] not in FILES:
      raise CheckpointError(f'{path}: {line!r} is no line of sha256sum.')
    file = Path(folder) / match[2]
    if not file.is_file():
      raise CheckpointError(f'{path}: lists {match[2]}, which is missing.')
    if _sha256(file) != match[1]:
      raise CheckpointError(
        f'{file}: differs from its checksum in {SUMS}; copy or download it '
        'again.'
      )
    listed.add(match[2])
  for name in _summed(Path(folder)):
    if name not in listed:
      raise CheckpointError(
        f'{path}: lacks a line for {name}; copy or download it again.'
      )


def _sha256(path: Path) -> str:
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def save_weights(
  folder: Path, model: BagelConfig, params: Any, *, dtype: str = 'float16'
) -> None:
  """Writes the model's shape and parameters.

  Args:
    folder: created if missing.
    model: the model's shape.
    params: nested arrays.
    dtype: dtype of the file's tensors.

  Raises:
    UserError: naming a parameter with a value too large for `dtype`.
  """
  tensors = {}
  for name, value in sorted(flatten(params).items()):
    stored = np.asarray(value, np.float32).astype(jnp.dtype(dtype))
    if not np.isfinite(stored.astype(np.float32)).all():
      raise UserError(f'{name}: does not fit in {dtype}.')
    tensors[name] = LazyArray.of(stored)
  folder.mkdir(parents=True, exist_ok=True)
  write_tensors(folder / TENSORS, tensors)
  shape = json.dumps(model_to_json(model), indent=2) + '\n'
  (folder / SHAPE).write_text(shape, 'utf-8')


def load_shape(folder: str | Path) -> BagelConfig:
  """The model's shape.

  Raises:
    CheckpointError: the file is missing or damaged.
  """
  try:
    text = (Path(folder) / SHAPE).read_text('utf-8')
    return model_from_json(json.loads(text))
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise CheckpointError(f'{folder}: {error}') from None


def load_weights(folder: str | Path) -> tuple[BagelConfig, Any]:
  """The model's shape and its parameters, nested float32 NumPy arrays.

  Raises:
    CheckpointError: a file is missing, damaged, or not that of SHA256SUMS.
  """
  model = load_shape(folder)
  check_files(folder)
  try:
    tensors = read_tensors(Path(folder) / TENSORS)
  except (OSError, ValueError) as error:
    raise CheckpointError(f'{folder}: {error}') from None
  return model, unflatten(
    {name: t.whole().astype(np.float32) for name, t in tensors.items()}
  )
