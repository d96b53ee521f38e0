"""Trains the small models' tokenizer from the wordings of tasks and scenes.

  python -m projects.small_base.train_tokenizer

Writes `synermedgen_jax/input/tokenizer.json`.
"""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Iterable

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from projects.small_base.scenes import questions
from synermedgen_jax.core.modalities import Modality
from synermedgen_jax.input import tokenizer as shipped
from synermedgen_jax.input.tokenizer import MARKERS, PAD
from synermedgen_jax.tasks import prompts

MAX_VOCAB = 768


def train_project_tokenizer() -> tokenizers.Tokenizer:
  """Trains the tokenizer on the wordings; deterministic."""
  tokenizer = tokenizers.Tokenizer(models.BPE())
  # Every line starts with a space, which decoding removes.
  tokenizer.normalizer = normalizers.Sequence(
    [normalizers.Replace('\n', '\n '), normalizers.Prepend(' ')]
  )
  tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
    [
      pre_tokenizers.Split(tokenizers.Regex(_word_pattern()), 'isolated'),
      pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
  )
  tokenizer.decoder = decoders.Sequence(
    [
      decoders.ByteLevel(),
      decoders.Replace('\n ', '\n'),
      decoders.Strip(' ', 1, 0),
    ]
  )
  trainer = trainers.BpeTrainer(
    vocab_size=MAX_VOCAB,
    special_tokens=[PAD, *MARKERS],
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  tokenizer.train_from_iterator(prompts.every_text(prompts.SHORT), trainer)
  return _with_words(tokenizer, questions.every_text())


def _with_words(
  tokenizer: tokenizers.Tokenizer, texts: Iterable[str]
) -> tokenizers.Tokenizer:
  """Makes every word of `texts` one token, with ids after the existing ones.

  New merges come last, so the tokens of other texts do not change.
  """
  for line in texts:
    for word in re.findall(_word_pattern(), f' {line}'):
      while len(pieces := tokenizer.encode(word[1:]).tokens) > 1:
        data = json.loads(tokenizer.to_str())['model']
        pair = pieces[:2]
        data['vocab'][''.join(pair)] = len(data['vocab'])
        data['merges'].append(pair)
        tokenizer.model = models.BPE(
          data['vocab'], [tuple(merge) for merge in data['merges']]
        )
  return tokenizer


def _word_pattern() -> str:
  """Labels such as `T1 (MRI)` as one match, then words, then characters."""
  labels = '|'.join(re.escape(modality.label) for modality in Modality)
  word = '[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*'
  return rf' ?(?:{labels})(?![A-Za-z0-9])| ?{word}|[^A-Za-z0-9]'


def main() -> None:
  """Writes `tokenizer.json` into the package."""
  path = pathlib.Path(shipped.__file__).with_name('tokenizer.json')
  text = train_project_tokenizer().to_str(pretty=True) + '\n'
  path.write_text(text, 'utf-8')


if __name__ == '__main__':
  main()
