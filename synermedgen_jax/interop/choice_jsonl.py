"""SynerMedGen's questions: a reference image, four options, a letter.

  {"image": ["t1/a.png", "t1ce/a.png", "t1ce/b.png", "t1ce/c.png",
             "t1ce/d.png"],
   "conversations": [{"from": "human", "value": "<image> Which ...?"},
                     {"from": "gpt", "value": "D"}],
   "pair": {"src": "t1", "tgt": "t1ce"}, "id": 7, "case_id": "c",
   "slice_idx": 3}

One JSON object per line. `image` lists the reference and then the options A to
D, and `conversations` has a question and its right answer; both are read as in
`vlm_jsonl`. A question with one `<image>` shows all five images in its place,
one without any shows them first. `pair` is optional and selects the row of the
table of pairs; `id`, `case_id` and `slice_idx` are optional and copied to the
records of the answers. Other fields are refused.

Source: piooip/SynerMedGen, eval/vlm/eval/mmvp/evaluate_mmvp_new.py.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from synermedgen_jax.interop.image_files import FormatError
from synermedgen_jax.interop.vlm_jsonl import PLACEHOLDER, parse_row
from synermedgen_jax.tasks.example import Example
from synermedgen_jax.tasks.prompts import LETTERS
from synermedgen_jax.tasks.scoring import letters_in

_IMAGES = 1 + len(LETTERS)
_COPIED = ('id', 'case_id', 'slice_idx')
_FIELDS = ('image', 'conversations', 'pair', *_COPIED)


@dataclasses.dataclass(frozen=True)
class Choice:
  """One question.

  Attributes:
    example: the images and the question, with its right answer.
    letter: the right one of A to D.
    pair: 'SOURCE->TARGET', the modalities of the reference and of the options;
      '' = not stated.
    about: number of the line, and the optional fields that are copied.
  """

  example: Example
  letter: str
  pair: str
  about: Mapping[str, Any]


def read_choices(path: Path, images: Path | None = None) -> list[Choice]:
  """Reads all questions of a file.

  Args:
    path: JSONL file.
    images: folder that paths of images are relative to; None = the folder of
      the file.

  Raises:
    FormatError: the file cannot be read or holds no question, a line is
      invalid, or an image is missing; the message names file and line.
  """
  images = images or path.parent
  try:
    lines = path.read_bytes().split(b'\n')
  except OSError as error:
    raise FormatError(f'{path}: {error.strerror}.') from None
  choices = [
    _parse(line, number, f'{path}: line {number}', images)
    for number, line in enumerate(lines, start=1)
    if line.strip()
  ]
  if not choices:
    raise FormatError(f'{path}: holds no question.')
  return choices


def _parse(line: bytes, number: int, where: str, images: Path) -> Choice:
  try:
    row = json.loads(line)
  except ValueError as error:
    raise FormatError(f'{where}: is not JSON: {error}.') from None
  if not isinstance(row, dict):
    raise FormatError(f'{where}: is not a JSON object.')
  if unknown := sorted(set(row) - set(_FIELDS)):
    raise FormatError(
      f'{where}: unknown field {", ".join(unknown)}; expected some of '
      f'{", ".join(_FIELDS)}.'
    )
  example = parse_row(_with_placeholders(row, where), where, images)
  for span in example.spans:
    if span.image is not None and not span.image.path.is_file():
      raise FormatError(f'{where}: no such picture {span.image.path}.')
  letters = set(letters_in(example.answer))
  if len(letters) != 1:
    raise FormatError(
      f'{where}: the right answer {example.answer!r} is not one letter of '
      f'{", ".join(LETTERS)}.'
    )
  about = {'line': number} | {k: row[k] for k in _COPIED if k in row}
  return Choice(example, *letters, _pair(row.get('pair'), where), about)


def _with_placeholders(row: Mapping[str, Any], where: str) -> dict[str, Any]:
  """The row with a placeholder for every image."""
  paths, turns = row.get('image'), row.get('conversations')
  if not isinstance(paths, list) or len(paths) != _IMAGES:
    given = f'{len(paths)}' if isinstance(paths, list) else 'no list'
    raise FormatError(
      f'{where}: image has {given}, expected {_IMAGES} paths: of the reference '
      f'and of the options {", ".join(LETTERS)}.'
    )
  if (
    not isinstance(turns, list)
    or not all(isinstance(turn, dict) for turn in turns)
    or [turn.get('from') for turn in turns] != ['human', 'gpt']
    or not isinstance(turns[0].get('value'), str)
  ):
    raise FormatError(
      f'{where}: conversations is not a question from human and an answer '
      'from gpt.'
    )
  asked, answered = turns
  question = asked['value']
  if PLACEHOLDER not in question:
    question = f'{PLACEHOLDER}\n{question}'
  if question.count(PLACEHOLDER) == 1:
    question = question.replace(PLACEHOLDER, PLACEHOLDER * _IMAGES)
  return {**row, 'conversations': [{**asked, 'value': question}, answered]}


def _pair(value: Any, where: str) -> str:
  """'SOURCE->TARGET' of a pair; '' without one."""
  if value is None:
    return ''
  if not isinstance(value, dict) or set(value) != {'src', 'tgt'}:
    raise FormatError(
      f'{where}: pair is not an object of src and tgt: {value!r}.'
    )
  return f'{value["src"]}->{value["tgt"]}'
