"""Converts text to token ids, with the project's tokenizer or one from files.

The project's tokenizer is a byte-level BPE trained on the prompts of
`tasks/prompts.py`. Each word of the prompts and each modality label is one
token; all other text, such as the 'and' between two sources, encodes and
decodes exactly. A word has the same id at the
start of a line and after a space, so the letter of a panel is always one token.

`projects/small_base/train_tokenizer.py` writes it to `tokenizer.json`.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Sequence
from importlib import resources

import tokenizers
from etils.epath import PathLike

from synermedgen_jax.input import vocab_files

PROJECT = 'project'  # name of the project's tokenizer in configs

PAD = '<|pad|>'
IM_START, IM_END = '<|im_start|>', '<|im_end|>'
VISION_START, VISION_END = '<|vision_start|>', '<|vision_end|>'
MARKERS = (IM_START, IM_END, VISION_START, VISION_END)


class Tokenizer:
  """Converts text to ids and back, with the four markers of spans.

  Attributes:
    im_start, im_end, vision_start, vision_end: ids of the markers.
  """

  pad = 0  # id of padding, which has no effect on attention or loss

  def __init__(self, tokenizer: tokenizers.Tokenizer):
    """Wraps `tokenizer`, and adds the markers that it lacks."""
    tokenizer.add_special_tokens(list(MARKERS))
    # Markers spelled in a text are encoded as text.
    tokenizer.encode_special_tokens = True
    self._tokenizer = tokenizer
    self.im_start, self.im_end, self.vision_start, self.vision_end = (
      tokenizer.token_to_id(marker) for marker in MARKERS
    )

  @classmethod
  def from_file(cls, path: PathLike) -> Tokenizer:
    """Reads a tokenizer, such as that in the folder of BAGEL's weights.

    Missing markers get the ids after the last; existing ones keep their ids.

    Args:
      path: a `tokenizer.json`, or a folder with one or with Qwen2's
        `vocab.json` and `merges.txt`; local or such as gs://BUCKET/DIR.

    Raises:
      FileNotFoundError: a file is missing; the message names it.
      ValueError: a file is invalid; the message names file and problem.
    """
    return cls(vocab_files.read(path))

  @classmethod
  def from_json(cls, text: str) -> Tokenizer:
    """Reads the text of a `tokenizer.json`."""
    return cls(tokenizers.Tokenizer.from_str(text))

  @property
  def vocab_size(self) -> int:
    """The number of ids, special tokens included."""
    return self._tokenizer.get_vocab_size()

  @functools.cached_property
  def fingerprint(self) -> str:
    """12 hexadecimal digits, equal for tokenizers with equal ids."""
    vocab = json.dumps(self._tokenizer.get_vocab(), sort_keys=True)
    return hashlib.sha256(vocab.encode()).hexdigest()[:12]

  def encode(self, text: str) -> list[int]:
    """The ids of `text`, without markers around them."""
    return self._tokenizer.encode(text, add_special_tokens=False).ids

  def decode(self, ids: Sequence[int]) -> str:
    """The text of `ids`, without markers and padding."""
    return self._tokenizer.decode(list(ids), skip_special_tokens=True)

  def __reduce__(self):
    return Tokenizer.from_json, (self._tokenizer.to_str(),)


def project_tokenizer() -> Tokenizer:
  """Reads the project's tokenizer from the package."""
  file = resources.files('synermedgen_jax.input') / 'tokenizer.json'
  return Tokenizer.from_json(file.read_text('utf-8'))


def load_tokenizer(name: str) -> Tokenizer:
  """Reads the project's tokenizer ('project') or one at a path or address.

  Raises:
    FileNotFoundError, ValueError: as in `Tokenizer.from_file`.
  """
  return project_tokenizer() if name == PROJECT else Tokenizer.from_file(name)
