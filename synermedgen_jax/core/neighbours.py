"""Existing paths that a mistyped one may stand for."""

from __future__ import annotations

import difflib
from pathlib import Path


def did_you_mean(path: object) -> str:
  """' Did you mean PATH?' for a local path that does not exist, or ''.

  The first part that does not exist is replaced by the nearest folder beside
  it; the result has to exist.
  """
  text = str(path)
  if '://' in text or Path(text).exists():
    return ''
  parts = Path(text).parts
  for i, part in enumerate(parts):
    folder = Path(*parts[:i])
    if (folder / part).exists():
      continue
    try:
      names = [p.name for p in folder.iterdir() if p.is_dir()]
    except OSError:
      return ''
    for name in difflib.get_close_matches(part, names, 3, 0.7):
      if (near := folder.joinpath(name, *parts[i + 1 :])).exists():
        return f' Did you mean {near}?'
    return ''
  return ''
