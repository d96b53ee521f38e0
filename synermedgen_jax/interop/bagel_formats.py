"""Training on data in BAGEL's own formats, without a slice store.

`vlm_jsonl` reads and writes conversations, `editing_parquet` edits; here the
files that a config names become tasks of `input.pipeline.train_dataset`.
"""

from __future__ import annotations

import glob
from collections.abc import Mapping
from pathlib import Path

import grain.python as grain

from synermedgen_jax.interop.editing_parquet import EditingRows, editing_dataset
from synermedgen_jax.interop.image_files import FormatError
from synermedgen_jax.interop.vlm_jsonl import VlmLines
from synermedgen_jax.tasks.example import ExampleSource

TASKS = ('vlm', 'editing')


def sources(files: Mapping[str, str], split: str) -> dict[str, ExampleSource]:
  """The tasks `vlm` and `editing`; their files are opened when first needed.

  Args:
    files: `vlm` and `editing`, each a path or a pattern such as `DIR/*.jsonl`;
      `val_vlm` and `val_editing`, the same for the split 'val'; and `images`,
      what the conversations' paths are relative to, by default the folder of
      the JSONL file.
    split: 'train' or 'val'.

  Returns:
    Task name -> seed -> an endless dataset of its examples; raises FormatError
    where a file is not named, is not there or cannot be read.
  """

  def vlm(seed: int) -> grain.MapDataset:
    images = files.get('images')
    lines = VlmLines(
      _find(files, 'vlm', split), Path(images) if images else None
    )
    lines[0]  # A file of another format is told before training starts.
    return grain.MapDataset.source(lines).seed(seed).shuffle().repeat()

  def editing(seed: int) -> grain.MapDataset:
    return editing_dataset(EditingRows(_find(files, 'editing', split)), seed)

  return {'vlm': vlm, 'editing': editing}


def _find(files: Mapping[str, str], task: str, split: str) -> list[Path]:
  """The files of a task, in one order everywhere."""
  key = task if split == 'train' else f'{split}_{task}'
  pattern = files.get(key)
  if not pattern:
    advice = '' if split == 'train' else ', or set config.val_every=0'
    raise FormatError(
      f'config.bagel_files.{key} is empty: task {task!r} needs a file{advice}.'
    )
  found = sorted(glob.glob(pattern, recursive=True)) or [pattern]
  missing = [path for path in found if not Path(path).is_file()]
  if missing:
    raise FormatError(f'config.bagel_files.{key}: no file {missing[0]}.')
  return list(map(Path, found))
