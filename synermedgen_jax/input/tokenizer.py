"""Text to token ids: the small models' own tokenizer, or one from files.

The project's tokenizer is a byte-level BPE trained on the prompts of
`tasks/prompts.py`: each of their words and each modality label is one token,
and any other text still encodes and decodes exactly. A word has the same id at
the start of a line as after a space, so a panel's letter is one token anywhere.

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

PROJECT = 'project'  # the name of the tokenizer that ships

PAD = '<|pad|>'
IM_START, IM_END = '<|im_start|>', '<|im_end|>'
VISION_START, VISION_END = '<|vision_start|>', '<|vision_end|>'
MARKERS = (IM_START, IM_END, VISION_START, VISION_END)


class Tokenizer:
  """Text to ids and back, with the four markers of spans."""

  pad = 0  # The id of padding: nothing attends to it and no loss counts it.

  def __init__(self, tokenizer: tokenizers.Tokenizer):
    """Wraps `tokenizer`, adding the markers that it lacks."""
    tokenizer.add_special_tokens(list(MARKERS))
    # A text that spells a marker is a text, not a marker.
    tokenizer.encode_special_tokens = True
    self._tokenizer = tokenizer
    self.im_start, self.im_end, self.vision_start, self.vision_end = (
      tokenizer.token_to_id(marker) for marker in MARKERS
    )

  @classmethod
  def from_file(cls, path: PathLike) -> Tokenizer:
    """Reads a tokenizer such as the one beside BAGEL's weights.

    Markers that it lacks get the ids after its last; others keep theirs.

    Args:
      path: a `tokenizer.json`, or a folder that holds one, or `vocab.json` and
        `merges.txt` of Qwen2; local or an address such as gs://BUCKET/DIR.

    Raises:
      FileNotFoundError: naming the missing file.
      ValueError: one line naming a file and what is wrong with it.
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
    """12 hexadecimal digits that tokenizers with equal ids share."""
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
  """The tokenizer of the small models, as shipped."""
  file = resources.files('synermedgen_jax.input') / 'tokenizer.json'
  return Tokenizer.from_json(file.read_text('utf-8'))


def load_tokenizer(name: str) -> Tokenizer:
  """Reads the tokenizer called 'project', or the one at a path or address.

  Raises:
    FileNotFoundError, ValueError: as `Tokenizer.from_file`.
  """
  return project_tokenizer() if name == PROJECT else Tokenizer.from_file(name)
