"""BAGEL's VLM format: conversations about pictures, one JSON object a line.

  {"image": ["a.png", "b.png"], "conversations": [
    {"from": "human", "value": "<image>\\nfirst\\n<image>\\nsecond\\nWhich?"},
    {"from": "gpt", "value": "the first"}]}

`image` is a list of paths, or one path; each `<image>` in what the human says
is the place of the next one. Read as BAGEL reads it: pictures are ViT images,
the words between two of them are a text span without the spaces around it, and
every answer has a loss.
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
# Pictures that a folder of `write_vlm` holds.
_A_FOLDER = 1000


class VlmLines:
  """The examples of JSONL files, by index; lines are read when asked for."""

  def __init__(self, paths: Sequence[Path], images: Path | None = None):
    """Finds where the lines begin.

    Args:
      paths: JSONL files.
      images: what the pictures' paths are relative to; by default the folder
        of the file that names them.

    Raises:
      FormatError: a file has no line.
    """
    self._images = images
    self._files = []
    self._ends = []  # How many examples there are up to the end of a file.
    for path in paths:
      starts, stops, numbers = _find_lines(path)
      if not len(starts):
        raise FormatError(f'{path}: holds no conversation.')
      self._files.append((path, starts, stops, numbers))
      self._ends.append(len(self) + len(starts))

  def __len__(self) -> int:
    return self._ends[-1] if self._ends else 0

  def __getitem__(self, index: int) -> Example:
    """One conversation.

    Raises:
      FormatError: naming file, line and what is wrong with it.
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
  """Where lines start and stop, and their numbers; empty ones left out."""
  found = [np.zeros(1, np.int64)]
  offset = 0
  with path.open('rb') as file:
    while chunk := file.read(_CHUNK):
      ends = np.flatnonzero(np.frombuffer(chunk, np.uint8) == ord('\n'))
      found.append(ends + offset + 1)
      offset += len(chunk)
  edges = np.concatenate([*found, np.asarray([offset], np.int64)])
  starts, stops = edges[:-1], edges[1:]
  full = stops - starts > 0
  with path.open('rb') as file:
    for i in np.flatnonzero(full & (stops - starts <= 2)):
      file.seek(starts[i])
      full[i] = bool(file.read(2)[: stops[i] - starts[i]].strip())
  kept = np.flatnonzero(full)
  return starts[kept], stops[kept], kept + 1


def parse_line(data: str | bytes, where: str, images: Path) -> Example:
  """One line as an example of task `vlm`.

  Args:
    data: the line.
    where: file and line, for errors.
    images: what the pictures' paths are relative to.

  Raises:
    FormatError: naming `where` and what is wrong.
  """
  try:
    row = json.loads(data)
  except ValueError as error:
    raise FormatError(f'{where}: is not JSON: {error}.') from None
  paths, turns = _check_row(row, where)
  spans = []
  shown = 0
  for speaker, value in turns:
    if speaker == 'gpt':
      spans.append(text(value, has_loss=True))
      continue
    # BAGEL leaves words alone where no picture stands among them.
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
  """The pictures' paths, and who says what."""
  if not isinstance(row, dict):
    raise FormatError(f'{where}: is not a JSON object.')
  if 'video' in row:
    raise FormatError(f'{where}: has a video; only pictures can be read.')
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
      raise FormatError(f'{where}: {speaker} says {value!r}.')
  if not turns or turns[-1][0] != 'gpt':
    raise FormatError(f'{where}: the last turn is not an answer of gpt.')
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
  """Writes examples of CTS, MI, TIA or their like as JSONL and PNG files.

  Reading them back gives the same spans. Where two texts follow one another,
  the human speaks twice in a row.

  Args:
    examples: of ViT images and texts, an answer last.
    read_slice: pixels by name, as `pipeline.slice_reader(store)`.
    directory: gets `vlm.jsonl` and `images/`, 8 bits a pixel.

  Returns:
    The path of the JSONL file, which is there once it is whole.

  Raises:
    FormatError: there is one already, or the format cannot hold an example.
  """
  directory = Path(directory)
  path = directory / 'vlm.jsonl'
  if path.exists():
    raise FormatError(f'{path}: is there already; name a new folder.')
  names = {}

  def write_picture(image: ImageRef) -> str:
    if image not in names:
      number = len(names)
      name = f'images/{number // _A_FOLDER:04d}/{number:07d}.png'
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
  """Who says what, `<image>` where the human shows one."""
  turns = []
  pieces = []

  def say() -> None:
    if pieces:
      turns.append(('human', '\n'.join(pieces)))
      pieces.clear()

  for span in example.spans:
    if span.kind == 'vae_image':
      raise FormatError(
        f'An example of task {example.task!r} has a VAE image, which the VLM '
        'format cannot hold; write it with write_editing.'
      )
    if span.kind == 'vit_image':
      # After a text, too, so that the two are told apart by a line's end.
      pieces.append(PLACEHOLDER)
    elif span.has_loss:
      say()
      turns.append(('gpt', span.text))
    elif PLACEHOLDER in span.text:
      raise FormatError(
        f'Task {example.task!r}: a text has {PLACEHOLDER!r} in it, which '
        'stands for a picture.'
      )
    else:
      # Beside a picture, reading takes spaces around a text away; after a
      # text, nothing would part the two.
      bare = span.text == span.text.strip()
      if not bare or (pieces and pieces[-1] != PLACEHOLDER):
        say()
      pieces.append(span.text)
      if not bare:
        say()
  say()
  if not turns or turns[-1][0] != 'gpt':
    raise FormatError(
      f'An example of task {example.task!r} does not end with an answer.'
    )
  return turns
