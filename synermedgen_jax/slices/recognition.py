"""Which layout the names of the files below a folder have.

It serves messages: a layout is recognised by names alone, and never used in
place of another one that the user names.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import NamedTuple

from synermedgen_jax.slices import input_files
from synermedgen_jax.slices.datasets import is_label, modality_or_none
from synermedgen_jax.slices.layouts import is_bids_image, split_name

_LOOKED_AT = 2000  # volumes
_CHANNEL = re.compile(r'.+_\d{4}')
_NNUNET_FOLDERS = ('imagesTr', 'imagesTs')


class Recognised(NamedTuple):
  """A layout and why it was recognised.

  Attributes:
    layout: a name in `core.choices.LAYOUTS`, or 'csv'.
    root: the folder that --root should name.
    example: a name that has the layout, relative to that folder.
  """

  layout: str
  root: Path
  example: str


def recognise(root: Path) -> Recognised | None:
  """The layout of the files below a folder; None = no known one, or several."""
  if root.is_file():
    is_table = root.suffix.lower() in ('.csv', '.tsv')
    return Recognised('csv', root, root.name) if is_table else None
  if root.name in _NNUNET_FOLDERS and (root.parent / 'dataset.json').is_file():
    root = root.parent
  entries = list(
    itertools.islice(input_files.volume_entries(root, []), _LOOKED_AT)
  )
  found: dict[str, list[Path]] = {}
  images = 0
  for entry in entries:
    path = entry.name.relative_to(root)
    if is_label(entry.stem):
      continue
    images += 1
    if layout := _layout_of(path, entry.stem):
      found.setdefault(layout, []).append(path)
  for layout, paths in found.items():
    if 2 * len(paths) > images:
      return Recognised(layout, root, str(paths[0]))
  return None


def _layout_of(path: Path, stem: str) -> str:
  """The layout of one volume by its path from the root, or ''."""
  folder = path.parts[0]
  if len(path.parts) == 2 and folder in _NNUNET_FOLDERS:
    return 'nnunet' if _CHANNEL.fullmatch(stem) else ''
  if folder.startswith('sub-') and stem.startswith('sub-'):
    return 'bids' if is_bids_image(stem) else ''
  if len(path.parts) == 1:
    return 'flat' if split_name(stem)[1] else ''
  if len(path.parts) == 2:
    return 'folder' if modality_or_none(stem) else ''
  return ''
