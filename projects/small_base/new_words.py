"""Words that a base never met start as words that it knows.

What stands for a new word in the vocabulary is noise: no head reads it, and in
the output layer of `weights/small` it is some three times as loud as what was
trained. A copy of a known name is in its place from the first step on, and
what is left to learn is what the new name looks like.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from synermedgen_jax.core.trees import flatten, unflatten
from synermedgen_jax.input.tokenizer import Tokenizer

# What an earlier small base called the looks of the modalities (training
# subjects, `python -m projects.small_base.first_looks`), no word twice; the
# regions in turn. The one that ships would pair some others (docs/base.md).
WORDS_OF_SCENES = (
  ('CBCT', 'depth'),
  ('CT', 'flat'),
  ('MRI', 'outline'),
  ('PET', 'glow'),
  ('T1 (MRI)', 'negative'),
  ('T1CE (MRI)', 'etched'),
  ('T2 (MRI)', 'frost'),
  ('FLAIR (MRI)', 'relief'),
  ('brain', 'nested'),
  ('pelvis', 'scattered'),
  ('whole-body', 'woven'),
  ('modality', 'style'),
)

_ROWS, _COLUMNS = 'embed_tokens/embedding', 'lm_head/kernel'


def start_as_known(
  params: Any, tokenizer: Tokenizer, words: Sequence[tuple[str, str]]
) -> Any:
  """The parameters with the rows of new words copied from known ones.

  Args:
    params: nested; with embed_tokens/embedding (vocab, hidden) and
      lm_head/kernel (hidden, vocab).
    tokenizer: of the vocabulary.
    words: (new word, known word), each one token.

  Raises:
    ValueError: naming a word of several tokens.
  """
  if not words:
    return params
  flat = flatten(params)
  rows, columns = (np.array(flat[name]) for name in (_ROWS, _COLUMNS))
  for pair in words:
    new, known = (_token(tokenizer, word) for word in pair)
    rows[new], columns[:, new] = flat[_ROWS][known], flat[_COLUMNS][:, known]
  return unflatten({**flat, _ROWS: rows, _COLUMNS: columns})


def _token(tokenizer: Tokenizer, word: str) -> int:
  tokens = tokenizer.encode(word)
  if len(tokens) != 1:
    raise ValueError(
      f'{word!r} is {len(tokens)} tokens: only a word of one can start as '
      'another.'
    )
  return tokens[0]
