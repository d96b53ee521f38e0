"""BAGEL's VLM format: conversations about pictures, one JSON object per line.

  {"image": ["a.png", "b.png"], "conversations": [
    {"from": "human", "value": "<image>\\nfirst\\n<image>\\nsecond\\nWhich?"},
    {"from": "gpt", "value": "the first"}]}

`image` is a path or a list of paths. Each `<image>` in the human's text marks
the position of the next picture. As in BAGEL, pictures are ViT images, the text
between two of them is a span without its surrounding spaces, and every answer
has a loss.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from synermedgen_jax.input.packing import ReadSlice
from synermedgen_jax.interop.image_files import (
  FormatError,
  PictureFile,
  encode_png,
)
from synermedgen_jax.tasks.example import Example, ImageRef, text, vit_image

PLACEHOLDER = '<image>'
_CHUNK = 2**24
_PICTURES_PER_FOLDER = 1000


class VlmLines:
  """The examples of JSONL files by index; lines are read on demand."""

  def __init__(self, paths: Sequence[Path], images: Path | None = None):
    """Indexes the lines of the files.

    Args:
      paths: JSONL files.
      images: folder that paths of pictures are relative to; None = the folder
        of the JSONL file.

    Raises:
      FormatError: a file has no conversation.
    """
    self._images = images
    self._files = []
    self._ends = []  # number of examples up to the end of each file
    for path in paths:
      starts, stops, numbers = _find_lines(path)
      if not len(starts):
        raise FormatError(f'{path}: holds no conversation.')
      self._files.append((path, starts, stops, numbers))
      self._ends.append(len(self) + len(starts))

  def __len__(self) -> int:
    return self._ends[-1] if self._ends else 0

  def __getitem__(self, index: int) -> Example:
    """Reads one conversation.

    Raises:
      FormatError: the line is invalid; the message names file, line and
        problem.
    """
    file = int(np.searchsorted(self._ends, index, side='right'))
    path, starts, stops, numbers = self._files[file]
    line = index - (self._ends[file - 1] if file else 0)
    with path.open('rb') as stream:
      stream.seek(starts[line])
      data = stream.read(int(stops[line] - starts[line]))
    return parse_line(
      data, f'{path}: line {numbers[line]}', self._images or path.parent
    )


def _find_lines(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Offsets of the starts and ends of non-empty lines, and their numbers."""
  line_ends = [np.zeros(1, np.int64)]
  offset = 0
  with path.open('rb') as file:
    while chunk := file.read(_CHUNK):
      ends = np.flatnonzero(np.frombuffer(chunk, np.uint8) == ord('\n'))
      line_ends.append(ends + offset + 1)
      offset += len(chunk)
  edges = np.concatenate([*line_ends, np.asarray([offset], np.int64)])
  starts, stops = edges[:-1], edges[1:]
  nonempty = stops - starts > 0
  with path.open('rb') as file:
    for i in np.flatnonzero(nonempty & (stops - starts <= 2)):
      file.seek(starts[i])
      nonempty[i] = bool(file.read(2)[: stops[i] - starts[i]].strip())
  kept = np.flatnonzero(nonempty)
  return starts[kept], stops[kept], kept + 1


def parse_line(data: str | bytes, where: str, images: Path) -> Example:
  """Parses one line as an example of the task `vlm`.

  Args:
    data: the line.
    where: file and line, for errors.
    images: folder that paths of pictures are relative to.

  Raises:
    FormatError: the line is invalid; the message begins with `where`.
  """
  try:
    row = json.loads(data)
  except ValueError as error:
    raise FormatError(f'{where}: is not JSON: {error}.') from None
  return parse_row(row, where, images)


def parse_row(row: Any, where: str, images: Path) -> Example:
  """Converts a decoded line; arguments and errors are those of `parse_line`."""
  paths, turns = _check_row(row, where)
  spans = []
  shown = 0
  for speaker, value in turns:
    if speaker == 'gpt':
      spans.append(text(value, has_loss=True))
      continue
    # BAGEL strips spaces only from texts with a picture.
    pieces = value.split(PLACEHOLDER)
    if len(pieces) > 1:
      pieces = [piece.strip() for piece in pieces]
    for i, piece in enumerate(pieces):
      if i:
        picture = PictureFile(images / paths[shown], where)
        spans.append(vit_image(picture))
        shown += 1
      if piece:
        spans.append(text(piece))
  return Example('vlm', tuple(spans), answer=spans[-1].text)


def _check_row(row: Any, where: str) -> tuple[list[str], list[tuple[str, str]]]:
  """Paths of the pictures, and (speaker, text) of each turn."""
  if not isinstance(row, dict):
    raise FormatError(f'{where}: is not a JSON object.')
  if 'video' in row:
    raise FormatError(f'{where}: has a video; only pictures are supported.')
  paths = row.get('image', [])
  paths = [paths] if isinstance(paths, str) else paths
  if not isinstance(paths, list) or not all(
    isinstance(path, str) and path for path in paths
  ):
    raise FormatError(f'{where}: image is not a path or a list of paths.')
  try:
    turns = [(turn['from'], turn['value']) for turn in row['conversations']]
  except (KeyError, TypeError):
    raise FormatError(
      f'{where}: conversations is not a list of {{"from": …, "value": …}}.'
    ) from None
  for speaker, value in turns:
    if speaker not in ('human', 'gpt'):
      raise FormatError(f'{where}: from is {speaker!r}, expected human or gpt.')
    if not isinstance(value, str) or (speaker == 'gpt' and not value):
      raise FormatError(
        f'{where}: {speaker} has the value {value!r}, expected a text.'
      )
  if not turns or turns[-1][0] != 'gpt':
    raise FormatError(f'{where}: the last turn is not an answer from gpt.')
  places = sum(v.count(PLACEHOLDER) for s, v in turns if s == 'human')
  if places != len(paths):
    raise FormatError(
      f'{where}: {places} {PLACEHOLDER} placeholder(s) for {len(paths)} '
      'picture(s).'
    )
  return paths, turns


def write_vlm(
  examples: Iterable[Example],
  read_slice: ReadSlice,
  directory: str | os.PathLike,
) -> Path:
  """Writes examples of understanding tasks as JSONL and PNG files.

  `VlmLines` reads the same spans back. Two consecutive texts become two turns
  of the human. The JSONL file is written atomically.

  Args:
    examples: examples with ViT images and texts that end with an answer.
    read_slice: pixels of an image, as `pipeline.slice_reader(store)`.
    directory: folder for `vlm.jsonl` and `images/` (8 bits per channel).

  Returns:
    The path of the JSONL file.

  Raises:
    FormatError: the file exists, or the format cannot represent an example.
  """
  directory = Path(directory)
  path = directory / 'vlm.jsonl'
  if path.exists():
    raise FormatError(f'{path}: already exists; name a new folder.')
  names = {}

  def write_picture(image: ImageRef) -> str:
    if image not in names:
      number = len(names)
      name = f'images/{number // _PICTURES_PER_FOLDER:04d}/{number:07d}.png'
      (directory / name).parent.mkdir(parents=True, exist_ok=True)
      (directory / name).write_bytes(encode_png(read_slice(image)))
      names[image] = name
    return names[image]

  directory.mkdir(parents=True, exist_ok=True)
  part = path.with_suffix('.part')
  with part.open('w', encoding='utf-8') as file:
    for example in examples:
      turns = _turns(example)
      images = [s.image for s in example.spans if s.kind == 'vit_image']
      row = {
        'image': [write_picture(image) for image in images],
        'conversations': [{'from': s, 'value': v} for s, v in turns],
      }
      file.write(json.dumps(row) + '\n')
  part.replace(path)
  return path


def _turns(example: Example) -> list[tuple[str, str]]:
  """(Speaker, text) of each turn, with `<image>` for each picture."""
  turns = []
  pieces = []

  def end_turn() -> None:
    if pieces:
      turns.append(('human', '\n'.join(pieces)))
      pieces.clear()

  for span in example.spans:
    if span.kind == 'vae_image':
      raise FormatError(
        f'An example of task {example.task!r} has a VAE image, which the VLM '
        'format does not support; use write_editing.'
      )
    if span.kind == 'vit_image':
      pieces.append(PLACEHOLDER)
    elif span.has_loss:
      end_turn()
      turns.append(('gpt', span.text))
    elif PLACEHOLDER in span.text:
      raise FormatError(
        f'Task {example.task!r}: a text has {PLACEHOLDER!r}, which is '
        'the placeholder of a picture.'
      )
    else:
      # Two texts in one turn would become one span. A turn with a picture would
      # lose the spaces around a text.
      bare = span.text == span.text.strip()
      if not bare or (pieces and pieces[-1] != PLACEHOLDER):
        end_turn()
      pieces.append(span.text)
      if not bare:
        end_turn()
  end_turn()
  if not turns or turns[-1][0] != 'gpt':
    raise FormatError(
      f'An example of task {example.task!r} does not end with an answer.'
    )
  return turns
