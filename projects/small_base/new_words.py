"""Initialises medical words as copies of words that the base has learned.

The base was not trained on the names of modalities and regions. Their
embeddings are noise, no head reads them, and in the output layer they are three
times as large as trained ones. As copies of names of styles they work from the
first step, and Stage I only has to learn the appearance of each modality.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from synermedgen_jax.core.trees import flatten, unflatten
from synermedgen_jax.input.tokenizer import Tokenizer

_ROWS, _COLUMNS = 'embed_tokens/embedding', 'lm_head/kernel'

# A modality starts as the style that an earlier base named for it
# (`first_looks.py`), each style once; regions start as kinds of scene.
WORDS = (
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


def start_as_known(
  params: Any, tokenizer: Tokenizer, words: Sequence[tuple[str, str]]
) -> Any:
  """Parameters in which the vectors of new words are copies of known ones.

  Args:
    params: nested arrays, with embed_tokens/embedding (vocab, hidden) and
      lm_head/kernel (hidden, vocab). Not changed.
    tokenizer: tokenizer of the vocabulary.
    words: (new word, known word), each a single token.

  Raises:
    ValueError: naming a word that has several tokens.
  """
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
      f'{word!r} is {len(tokens)} tokens: only single tokens can be copied.'
    )
  return tokens[0]
