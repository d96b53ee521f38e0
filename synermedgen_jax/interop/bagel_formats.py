"""Training tasks on data in BAGEL's own formats, without a slice store.

The files that `config.bagel_files` names become tasks of
`input.pipeline.train_dataset`: conversations (`vlm_jsonl`) and edits
(`editing_parquet`).
"""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import grain.python as grain

from synermedgen_jax.interop.editing_parquet import EditingRows, editing_dataset
from synermedgen_jax.interop.image_files import FormatError
from synermedgen_jax.interop.vlm_jsonl import VlmLines
from synermedgen_jax.tasks.example import ExampleSource

BAGEL_TASKS = ('vlm', 'editing')


def sources(files: Mapping[str, str], split: str) -> dict[str, ExampleSource]:
  """Returns the sources of the tasks `vlm` and `editing`.

  A source opens its files when it is first called; it raises FormatError if a
  file is not configured, is missing or cannot be read.

  Args:
    files: `vlm` and `editing`, each a path or a pattern such as `DIR/*.jsonl`;
      `val_vlm` and `val_editing`, the same for the split 'val'; and `images`,
      the folder that paths of pictures are relative to, by default that of the
      JSONL file.
    split: 'train' or 'val'.

  Returns:
    Task name -> function from a seed to an endless dataset of its examples.
  """

  def vlm(seed: int) -> grain.MapDataset:
    images = files.get('images')
    lines = VlmLines(
      _find(files, 'vlm', split), Path(images) if images else None
    )
    lines[0]  # Raises before training starts if the format is wrong.
    return grain.MapDataset.source(lines).seed(seed).shuffle().repeat()

  def editing(seed: int) -> grain.MapDataset:
    return editing_dataset(EditingRows(_find(files, 'editing', split)), seed)

  return {'vlm': vlm, 'editing': editing}


def contents(
  files: Mapping[str, str], split: str, tasks: Iterable[str]
) -> dict[str, str]:
  """Describes the files of the tasks, to notice files that change.

  Args:
    files, split: as in `sources`.
    tasks: names of tasks; only those of `BAGEL_TASKS` have files.

  Returns:
    Task name -> number of files and a fingerprint of their names and sizes.

  Raises:
    FormatError: a file is not configured or missing.
  """
  described = {}
  for task in sorted(set(tasks) & set(BAGEL_TASKS)):
    paths = _find(files, task, split)
    listing = ''.join(f'{path.stat().st_size} {path}\n' for path in paths)
    digest = hashlib.sha256(listing.encode()).hexdigest()[:12]
    described[task] = f'{len(paths)} file(s), {digest}'
  return described


def _find(files: Mapping[str, str], task: str, split: str) -> list[Path]:
  """The files of a task, sorted."""
  key = task if split == 'train' else f'{split}_{task}'
  pattern = files.get(key)
  if not pattern:
    advice = '' if split == 'train' else ', or set config.val_every=0'
    raise FormatError(
      f'config.bagel_files.{key} is empty: task {task!r} needs a file{advice}.'
    )
  paths = sorted(glob.glob(pattern, recursive=True)) or [pattern]
  missing = [path for path in paths if not Path(path).is_file()]
  if missing:
    raise FormatError(f'config.bagel_files.{key}: no file {missing[0]}.')
  return list(map(Path, paths))
