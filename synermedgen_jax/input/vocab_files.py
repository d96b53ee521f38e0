"""Reads a tokenizer from `tokenizer.json`, or from Qwen2's two older files.

`vocab.json` maps tokens to ids and `merges.txt` orders the merges. Neither file
defines the words that a text is first split into; this module uses Qwen2's
rule. Special tokens are those of `tokenizer_config.json`, by default those of
Qwen2.5. Paths may be local or addresses such as gs://BUCKET/DIR.
"""

from __future__ import annotations

import json
from typing import Any

import tokenizers
from etils.epath import Path, PathLike
from tokenizers import decoders, models, normalizers, pre_tokenizers

from synermedgen_jax.core import files

# Files of a tokenizer, including those that only PyTorch code reads. They are
# copied in this order: the last two complete what `holds_tokenizer` requires.
FILES = (
  'tokenizer_config.json',
  'special_tokens_map.json',
  'added_tokens.json',
  'vocab.json',
  'tokenizer.json',
  'merges.txt',
)

# A word is the first match of these; a space belongs to the following word.
_WORDS = (
  r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",  # English contractions
  r'[^\r\n\p{L}\p{N}]?\p{L}+',  # letters, with one preceding space or sign
  r'\p{N}',  # single digits
  r' ?[^\s\p{L}\p{N}]+[\r\n]*',  # signs, with following line ends
  r'\s*[\r\n]+',
  r'\s+(?!\S)',  # spaces, without the one that belongs to the next word
  r'\s+',
)

# Tokens that Qwen2.5 adds to its vocabulary, from id 151643 on.
_ADDED = (
  '<|endoftext|>',
  '<|im_start|>',
  '<|im_end|>',
  '<|object_ref_start|>',
  '<|object_ref_end|>',
  '<|box_start|>',
  '<|box_end|>',
  '<|quad_start|>',
  '<|quad_end|>',
  '<|vision_start|>',
  '<|vision_end|>',
  '<|vision_pad|>',
  '<|image_pad|>',
  '<|video_pad|>',
  '<tool_call>',
  '</tool_call>',
  '<|fim_prefix|>',
  '<|fim_middle|>',
  '<|fim_suffix|>',
  '<|fim_pad|>',
  '<|repo_name|>',
  '<|file_sep|>',
)
# The added tokens that are not special: a text may contain them.
_ADDED_WORDS = frozenset(_ADDED[14:])


def holds_tokenizer(folder: PathLike) -> bool:
  """Whether `folder` holds the files that `read` needs."""
  folder = Path(folder)
  sets = (('tokenizer.json',), ('vocab.json', 'merges.txt'))
  return any(all((folder / n).is_file() for n in names) for names in sets)


def copy(source: PathLike, folder: PathLike) -> None:
  """Copies the files of a tokenizer into `folder`, creating it if necessary.

  A file is copied as a whole or not at all.

  Args:
    source: a folder, whose files in `FILES` are copied, or one file, which
      becomes `tokenizer.json`.
    folder: the target folder.
  """
  source, folder = Path(source), Path(folder)
  copies = {source: 'tokenizer.json'}
  if source.is_dir():
    copies = {source / n: n for n in FILES if (source / n).is_file()}
  for file, name in copies.items():
    files.write_bytes(folder / name, file.read_bytes())


def read(path: PathLike) -> tokenizers.Tokenizer:
  """Reads a `tokenizer.json`, or a folder with one or with Qwen2's files.

  Raises:
    FileNotFoundError: a file is missing; the message names it.
    ValueError: a file is invalid; the message names file and problem.
  """
  path = Path(path)
  if not path.is_dir():
    return _read_tokenizer_json(path)
  if (path / 'tokenizer.json').is_file():
    return _read_tokenizer_json(path / 'tokenizer.json')
  if not (path / 'vocab.json').is_file():
    raise FileNotFoundError(
      f'{path}: has neither tokenizer.json nor vocab.json and merges.txt.'
    )
  return _read_qwen2(path)


def _read_tokenizer_json(path: Path) -> tokenizers.Tokenizer:
  if not path.is_file():
    raise FileNotFoundError(f'{path}: no such tokenizer.json.')
  try:
    return tokenizers.Tokenizer.from_str(path.read_text('utf-8'))
  except Exception as error:  # the library raises no narrower class
    raise ValueError(f'{path}: is not a tokenizer.json: {error}.') from None


def _read_qwen2(folder: Path) -> tokenizers.Tokenizer:
  vocab = _read_vocab(folder / 'vocab.json')
  merges = _read_merges(folder / 'merges.txt', vocab)
  tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges))
  tokenizer.normalizer = normalizers.NFC()
  words = tokenizers.Regex('|'.join(_WORDS))
  tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
    [
      pre_tokenizers.Split(words, 'isolated'),
      pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
  )
  tokenizer.decoder = decoders.ByteLevel()
  config = folder / 'tokenizer_config.json'
  if config.is_file():
    _add_tokens_of_config(tokenizer, config)
  else:
    tokenizer.add_tokens(
      [
        tokenizers.AddedToken(
          token, special=token not in _ADDED_WORDS, normalized=False
        )
        for token in _ADDED
      ]
    )
  _check_complete(folder / 'merges.txt', vocab, merges, tokenizer)
  return tokenizer


def _read_json(path: Path) -> dict[str, Any]:
  try:
    value = json.loads(path.read_text('utf-8'))
  except ValueError as error:
    raise ValueError(f'{path}: is not JSON: {error}.') from None
  if not isinstance(value, dict):
    raise ValueError(f'{path}: is not a JSON object.')
  return value


def _read_vocab(path: Path) -> dict[str, int]:
  """Token -> id; checks that every byte has a token."""
  vocab = _read_json(path)
  ids = list(vocab.values())
  if any(type(i) is not int for i in ids) or sorted(ids) != list(
    range(len(ids))
  ):
    raise ValueError(f'{path}: its ids are not 0 to {len(ids) - 1}.')
  missing = sorted(set(pre_tokenizers.ByteLevel.alphabet()) - set(vocab))
  if missing:
    raise ValueError(
      f'{path}: has no token for {len(missing)} of the 256 bytes, such as '
      f'{missing[0]!r}.'
    )
  return vocab


def _read_merges(path: Path, vocab: dict[str, int]) -> list[tuple[str, str]]:
  if not path.is_file():
    raise FileNotFoundError(f'{path}: no such file; vocab.json needs it.')
  try:
    # splitlines() would also split at characters that represent bytes.
    lines = path.read_text('utf-8').replace('\r\n', '\n').split('\n')
  except ValueError:
    raise ValueError(f'{path}: is not UTF-8 text.') from None
  merges = []
  for number, line in enumerate(lines, start=1):
    if not line or (number == 1 and line.startswith('#version')):
      continue
    parts = line.split(' ')
    if len(parts) != 2:
      raise ValueError(f'{path}: line {number} is not two tokens: {line!r}.')
    for token in (*parts, ''.join(parts)):
      if token not in vocab:
        raise ValueError(
          f'{path}: line {number} names {token!r}, which vocab.json lacks.'
        )
    merges.append((parts[0], parts[1]))
  return merges


def _check_complete(
  path: Path,
  vocab: dict[str, int],
  merges: list[tuple[str, str]],
  tokenizer: tokenizers.Tokenizer,
) -> None:
  """Raises ValueError if the merges do not make every word of the vocabulary.

  A shortened file would split texts into other tokens than those of training.
  """
  made = {first + second for first, second in merges}
  made.update(_ADDED)
  made.update(t.content for t in tokenizer.get_added_tokens_decoder().values())
  lost = [token for token in vocab if len(token) > 1 and token not in made]
  if lost:
    raise ValueError(
      f'{path}: lacks the merges of {len(lost)} tokens of vocab.json, such as '
      f'{lost[0]!r}; copy the whole file again.'
    )


def _add_tokens_of_config(tokenizer: tokenizers.Tokenizer, path: Path) -> None:
  """Adds the tokens of `added_tokens_decoder`, which must get their ids."""
  config = _read_json(path)
  try:
    entries = config['added_tokens_decoder']
    added = sorted((int(i), dict(entry)) for i, entry in entries.items())
    tokens = [
      (
        i,
        tokenizers.AddedToken(
          entry['content'],
          single_word=entry.get('single_word', False),
          lstrip=entry.get('lstrip', False),
          rstrip=entry.get('rstrip', False),
          normalized=entry.get('normalized', False),
          special=entry.get('special', False),
        ),
      )
      for i, entry in added
    ]
  except (KeyError, TypeError, ValueError, AttributeError) as error:
    raise ValueError(
      f'{path}: added_tokens_decoder cannot be read ({error!r}).'
    ) from None
  tokenizer.add_tokens([token for _, token in tokens])
  for i, token in tokens:
    actual = tokenizer.token_to_id(token.content)
    if actual != i:
      raise ValueError(
        f'{path}: {token.content} has id {i}, but vocab.json gives {actual}.'
      )
