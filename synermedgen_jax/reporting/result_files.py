"""Reads files of results; what is malformed is refused in one line."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from synermedgen_jax.evaluation.subjects import ResultError

EVALUATE_AGAIN = (
  'write it again with python -m synermedgen_jax.evaluate --workdir=DIR.'
)


def check(
  path: Path, value: Any, spec: Any, key: str = '', hint: str = ''
) -> None:
  """Raises ResultError unless a value has the keys and types of `spec`.

  Args:
    path: file of the value, for the message.
    value: a value from JSON.
    spec: a type, or a mapping of keys to specs.
    key: position of the value in the file.
    hint: advice; empty = to evaluate again.
  """
  expected = dict if isinstance(spec, Mapping) else spec
  accepted = (int, float) if expected is float else expected
  if not isinstance(value, accepted):
    actual = 'nothing' if value is None else f'{value!r:.40}'
    raise ResultError(
      f'{path}: {key or "content"}: expected {_JSON_NAMES[expected]}, '
      f'got {actual}; {hint or EVALUATE_AGAIN}'
    )
  if isinstance(spec, Mapping):
    for name, inner in spec.items():
      inner_key = f'{key}.{name}' if key else name
      check(path, value.get(name), inner, inner_key, hint)


_JSON_NAMES = {
  dict: 'an object',
  list: 'a list',
  float: 'a number',
  int: 'an integer',
  str: 'text',
  bool: 'true or false',
}


def read_json(path: Path) -> Any:
  """The content of a JSON file; raises ResultError if it has none."""
  try:
    return json.loads(path.read_text('utf-8'))
  except ValueError as error:
    raise ResultError(
      f'{path}: is not JSON ({error}); delete it and run the command that '
      'wrote it again.'
    ) from None


def read_npz(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
  """Arrays of an npz file, without pickle; raises ResultError."""
  try:
    with np.load(path, allow_pickle=False) as file:
      return {name: file[name] for name in names}
  except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
    detail = ' '.join(str(error).split())
    raise ResultError(
      f'{path}: cannot be read ({detail}); {EVALUATE_AGAIN}'
    ) from None
