"""Files that readers see complete or not at all, on disks and in buckets."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from etils.epath import Path, PathLike

from synermedgen_jax.core.errors import UserError, naming


def is_object(path: PathLike) -> bool:
  """Whether the path is an object of a store such as gs://."""
  return '://' in os.fspath(path)


def write_bytes(path: PathLike, content: bytes) -> None:
  """Replaces a file; readers see the old or the new content.

  Folders that do not exist are created.
  """
  path = Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  if is_object(path):  # object stores replace atomically
    path.write_bytes(content)
    return
  partial = path.with_name(f'.{path.name}.partial')
  try:
    with naming(path):
      partial.write_bytes(content)
    partial.replace(path)
  except BaseException:
    partial.unlink(missing_ok=True)
    raise


def write_text(path: PathLike, text: str) -> None:
  """Replaces a UTF-8 text file; see `write_bytes`."""
  write_bytes(path, text.encode())


def write_json(path: PathLike, value: Any) -> None:
  """Replaces a JSON file; see `write_bytes`."""
  write_text(path, json.dumps(value, indent=2) + '\n')


def write_npz(
  path: PathLike,
  arrays: Mapping[str, np.ndarray],
  *,
  compressed: bool = False,
) -> None:
  """Replaces an npz file; see `write_bytes`."""
  buffer = io.BytesIO()
  (np.savez_compressed if compressed else np.savez)(buffer, **arrays)
  write_bytes(path, buffer.getvalue())


@contextlib.contextmanager
def new_folder(path: str | os.PathLike) -> Iterator[pathlib.Path]:
  """A local folder that readers see complete or not at all.

  Yields:
    An empty folder beside `path`, to write to. It takes the name `path` at the
    end, or is removed after an error.

  Raises:
    UserError: `path` exists and is not an empty folder.
  """
  path = pathlib.Path(os.path.abspath(path))
  if path.exists() and (not path.is_dir() or any(path.iterdir())):
    raise UserError(f'{path}: already exists; remove it, or name a new folder.')
  partial = path.with_name(f'.{path.name}.partial')
  shutil.rmtree(partial, ignore_errors=True)
  partial.mkdir(parents=True)
  try:
    yield partial
    partial.replace(path)
  except BaseException:
    shutil.rmtree(partial, ignore_errors=True)
    raise
