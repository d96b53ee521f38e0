"""Qwen2's tokenizer from small files of both kinds, with hand-made ids."""

import errno
import json
import pickle
import unicodedata

import numpy as np
import pytest
from etils.epath import Path
from hypothesis import given
from hypothesis import strategies as st
from packing_fakes import GEOMETRY, read_slice

from synermedgen_jax.input import packing, vocab_files
from synermedgen_jax.input import tokenizer as lib
from synermedgen_jax.tasks import example as spans
from synermedgen_jax.tasks.example import Example

# How bytes are written in the files: printable ones as themselves.
_PRINTABLE = {*range(33, 127), *range(161, 173), *range(174, 256)}
_OTHERS = [byte for byte in range(256) if byte not in _PRINTABLE]
CHAR = {byte: chr(byte) for byte in _PRINTABLE} | {
  byte: chr(256 + i) for i, byte in enumerate(_OTHERS)
}
# The byte 97, an a, has id 97. Joined pieces follow from 256 on.
MERGES = [
  ('Ġ', 't'),  # 256: Ġ stands for a space
  ('1', '2'),  # 257
  ('h', 'e'),  # 258
  ('Ġt', 'he'),  # 259
  ("'", 's'),  # 260
  ('Ã', '©'),  # 261: é
  ('Ċ', 'Ċ'),  # 262: Ċ stands for a line's end
  ('_', 'a'),  # 263
  ('.', 'Ċ'),  # 264
  ('Ġ', 'Ġ'),  # 265
]
VOCAB = {CHAR[byte]: byte for byte in range(256)} | {
  a + b: 256 + i for i, (a, b) in enumerate(MERGES)
}
FIRST_ADDED = 266
PATTERN = (
  r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
  r' ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+'
)


def added(*contents, first=FIRST_ADDED, **options):
  entry = {'special': True, 'normalized': False} | options
  return {
    str(first + i): {'content': content} | entry
    for i, content in enumerate(contents)
  }


CONFIG = {
  'added_tokens_decoder': added('<|endoftext|>', '<|im_start|>', '<|im_end|>')
}


def write(folder, *, vocab=VOCAB, merges=MERGES, config=CONFIG):
  """The two files, and `tokenizer_config.json` unless it is None."""
  folder.mkdir(exist_ok=True, parents=True)
  (folder / 'vocab.json').write_text(json.dumps(vocab), 'utf-8')
  lines = ['#version: 0.2', *(f'{a} {b}' for a, b in merges)]
  (folder / 'merges.txt').write_text('\n'.join(lines) + '\n', 'utf-8')
  if config is not None:
    (folder / 'tokenizer_config.json').write_text(json.dumps(config))
  return folder


def write_tokenizer_json(folder):
  """The same as one file, in the words of Qwen2.5's own."""
  tokens = [
    {'id': int(i), 'single_word': False, 'lstrip': False, 'rstrip': False}
    | entry
    for i, entry in CONFIG['added_tokens_decoder'].items()
  ]
  bytes_ = {'type': 'ByteLevel', 'add_prefix_space': False}
  bytes_ |= {'trim_offsets': False, 'use_regex': False}
  split = {'type': 'Split', 'pattern': {'Regex': PATTERN}}
  split |= {'behavior': 'Isolated', 'invert': False}
  model = {'type': 'BPE', 'dropout': None, 'unk_token': None}
  model |= {'continuing_subword_prefix': '', 'end_of_word_suffix': ''}
  model |= {'fuse_unk': False, 'byte_fallback': False}
  model |= {'vocab': VOCAB, 'merges': [f'{a} {b}' for a, b in MERGES]}
  whole = {
    'version': '1.0',
    'truncation': None,
    'padding': None,
    'added_tokens': tokens,
    'normalizer': {'type': 'NFC'},
    'pre_tokenizer': {'type': 'Sequence', 'pretokenizers': [split, bytes_]},
    'post_processor': bytes_,
    'decoder': bytes_,
    'model': model,
  }
  folder.mkdir(exist_ok=True)
  (folder / 'tokenizer.json').write_text(json.dumps(whole))
  return folder


@pytest.fixture(scope='module')
def two(tmp_path_factory):
  """From `vocab.json` and `merges.txt`."""
  return lib.load_tokenizer(str(write(tmp_path_factory.mktemp('two'))))


@pytest.fixture(scope='module')
def one(tmp_path_factory):
  """From `tokenizer.json`."""
  folder = write_tokenizer_json(tmp_path_factory.mktemp('one'))
  return lib.load_tokenizer(str(folder))


CASES = {
  'the': [116, 258],
  ' the': [259],
  # The last space goes with the word.
  '  the': [32, 259],
  'a the': [97, 259],
  # Digits stay apart, though a merge would join them.
  '12': [49, 50],
  'a 12': [97, 32, 49, 50],
  "it's": [105, 116, 260],
  "'she": [260, 258],
  "'S": [39, 83],
  # A sign goes with the letters after it, and with the line's end.
  '_a': [263],
  'a_': [97, 95],
  'a.\n': [97, 264],
  'a\n\n': [97, 262],
  '   ': [265, 32],
  'é': [261],
  # The letter and its accent apart are the same text.
  'e\u0301': [261],
  '中': [0xE4, 0xB8, 0xAD],
  '': [],
}


@pytest.mark.parametrize(('text', 'ids'), CASES.items())
def test_texts_have_the_ids_counted_by_hand(two, one, text, ids):
  assert two.encode(text) == ids
  assert one.encode(text) == ids


@given(
  st.lists(
    st.one_of(
      st.text(max_size=6),
      st.sampled_from(["'s", ' the', '\r\n', '12', *lib.MARKERS, ' \t ']),
    )
  )
)
def test_both_kinds_of_files_give_the_same_ids(two, one, parts):
  text = ''.join(parts)
  assert two.encode(text) == one.encode(text)


@given(st.text())
def test_any_text_survives_in_normal_form(two, text):
  ids = two.encode(text)
  assert two.decode(ids) == unicodedata.normalize('NFC', text)


@given(st.lists(st.sampled_from([*lib.MARKERS, '<|endoftext|>', ' a', '\n'])))
def test_a_text_that_spells_a_marker_has_none(two, parts):
  ids = two.encode(''.join(parts))
  assert all(i < FIRST_ADDED for i in ids)


@pytest.mark.parametrize('kind', ['two', 'one'])
def test_markers_keep_their_ids_and_those_that_lack_follow(kind, request):
  t = request.getfixturevalue(kind)
  assert (t.im_start, t.im_end) == (267, 268)
  assert (t.vision_start, t.vision_end) == (269, 270)
  assert t.vocab_size == 271


def test_a_marker_of_the_vocabulary_itself_keeps_its_id(tmp_path):
  vocab = VOCAB | {'<|vision_end|>': 266}
  config = {'added_tokens_decoder': added('<|im_end|>', first=267)}
  t = lib.load_tokenizer(str(write(tmp_path, vocab=vocab, config=config)))
  assert (t.vision_end, t.im_end) == (266, 267)
  assert (t.im_start, t.vision_start) == (268, 269)
  assert t.vocab_size == 270


def test_without_a_config_the_added_tokens_are_those_of_qwen(tmp_path):
  t = lib.load_tokenizer(str(write(tmp_path, config=None)))
  # 151643 and on, in a vocabulary of 151643.
  assert (t.im_start, t.im_end) == (FIRST_ADDED + 1, FIRST_ADDED + 2)
  assert t.vision_start == FIRST_ADDED + 151652 - 151643
  assert t.vision_end == FIRST_ADDED + 151653 - 151643
  assert t.vocab_size == FIRST_ADDED + 22
  # This one is a word like others, for BAGEL too.
  assert t.encode('<tool_call>') == [FIRST_ADDED + 151657 - 151643]


def test_a_tokenizer_json_beside_the_others_is_taken(tmp_path):
  write(tmp_path, merges=[])
  write_tokenizer_json(tmp_path)
  assert lib.load_tokenizer(str(tmp_path)).encode(' the') == [259]


def test_a_pickled_tokenizer_is_the_same(two):
  copy = pickle.loads(pickle.dumps(two))
  assert [copy.encode(text) for text in CASES] == list(CASES.values())
  assert copy.vision_end == two.vision_end


def test_a_question_and_its_answer_are_two_marked_spans(two):
  example = Example(
    'mi',
    (spans.text('the 12'), spans.text(' the', has_loss=True)),
    answer=' the',
  )
  und = packing.tokenise(example, two, GEOMETRY, read_slice)['und']
  columns = dict(zip(packing.UND, und.T, strict=True))
  start, end = two.im_start, two.im_end
  tokens = [start, 116, 258, 32, 49, 50, end, start, 259, end]
  np.testing.assert_array_equal(columns['token_ids'], tokens)
  weights = [0, 0, 0, 0, 0, 0, 0, 1, 1, 0]
  np.testing.assert_array_equal(columns['ntp_weight'], weights)
  np.testing.assert_array_equal(columns['labels'][7:9], [259, end])
  np.testing.assert_array_equal(columns['positions'], range(10))


def replace(name, text):
  return lambda folder: (folder / name).write_text(text, 'utf-8')


def set_json(name, value):
  return replace(name, json.dumps(value))


def without(char):
  kept = [token for token in VOCAB if token != char]
  return {token: i for i, token in enumerate(kept)}


@pytest.mark.parametrize(
  ('spoil', 'reason'),
  [
    (replace('vocab.json', '{"a":'), r'vocab\.json: is not JSON'),
    (set_json('vocab.json', ['a']), r'vocab\.json: is not a JSON object'),
    (
      set_json('vocab.json', VOCAB | {'new': 300}),
      r'vocab\.json: its ids are not 0 to 266',
    ),
    (
      set_json('vocab.json', VOCAB | {'new': '266'}),
      r'vocab\.json: its ids are not 0 to 266',
    ),
    (
      set_json('vocab.json', without('~')),
      r"vocab\.json: has no token for 1 of the 256 bytes, such as '~'",
    ),
    (
      lambda folder: (folder / 'merges.txt').unlink(),
      r'merges\.txt: no such file',
    ),
    (
      replace('merges.txt', '#version: 0.2\nh e\nh\n'),
      r"merges\.txt: line 3 is not two tokens: 'h'",
    ),
    (
      replace('merges.txt', 'h e\nq q\n'),
      r"merges\.txt: line 2 names 'qq', which vocab\.json lacks",
    ),
    (
      replace('merges.txt', ''),
      r"merges\.txt: lacks the merges of 10 tokens .*, such as 'Ġt'; copy",
    ),
    (
      lambda folder: write(folder, merges=MERGES[:-2]),
      r"merges\.txt: lacks the merges of 2 tokens .*, such as '\.Ċ'; copy",
    ),
    (
      replace('tokenizer_config.json', '{'),
      r'tokenizer_config\.json: is not JSON',
    ),
    (
      set_json('tokenizer_config.json', {'added_tokens_decoder': {'x': {}}}),
      r'tokenizer_config\.json: added_tokens_decoder',
    ),
    (
      set_json(
        'tokenizer_config.json',
        {'added_tokens_decoder': added('<|im_end|>', first=400)},
      ),
      r'config\.json: <\|im_end\|> has id 400, but vocab\.json gives 266',
    ),
    (
      replace('tokenizer.json', '{"version": "1.0"}'),
      r'tokenizer\.json: is not a tokenizer\.json',
    ),
  ],
)
def test_spoilt_files_are_named_in_one_line(tmp_path, spoil, reason):
  spoil(write(tmp_path))
  with pytest.raises((ValueError, OSError), match=reason) as caught:
    lib.load_tokenizer(str(tmp_path))
  assert '\n' not in str(caught.value)


def test_a_folder_without_any_is_named(tmp_path):
  with pytest.raises(FileNotFoundError, match='has neither'):
    lib.load_tokenizer(str(tmp_path))


@pytest.fixture
def copy_on_full_disk(monkeypatch):
  """Copies a tokenizer to a disk that fills in the middle of a file."""
  kind = type(Path())
  write_bytes = kind.write_bytes

  def copy(source, folder, full_at):
    def until_full(path, content):
      if full_at in path.name:
        write_bytes(path, content[:9])
        raise OSError(errno.ENOSPC, 'No space left on device')
      return write_bytes(path, content)

    with monkeypatch.context() as patch:
      patch.setattr(kind, 'write_bytes', until_full)
      with pytest.raises(OSError, match='No space left'):
        vocab_files.copy(source, folder)
    assert not (folder / full_at).exists()

  return copy


@pytest.mark.parametrize('full_at', ['vocab.json', 'merges.txt'])
def test_a_copy_that_was_interrupted_is_no_tokenizer(
  tmp_path, copy_on_full_disk, full_at
):
  source, folder = write(tmp_path / 'source'), tmp_path / 'copy'
  copy_on_full_disk(source, folder, full_at)
  assert not vocab_files.holds_tokenizer(folder)
  vocab_files.copy(source, folder)
  assert {p.name for p in folder.iterdir()} == {
    p.name for p in source.iterdir()
  }
  assert lib.load_tokenizer(str(folder)).encode(' the') == [259]


@pytest.mark.parametrize(
  ('full_at', 'held'),
  [('vocab.json', False), ('tokenizer.json', False), ('merges.txt', True)],
)
def test_two_files_are_not_read_in_the_place_of_an_interrupted_tokenizer_json(
  tmp_path, copy_on_full_disk, full_at, held
):
  source, folder = write(tmp_path / 'source'), tmp_path / 'copy'
  write_tokenizer_json(source)
  copy_on_full_disk(source, folder, full_at)
  assert vocab_files.holds_tokenizer(folder) == held
  assert (folder / 'tokenizer.json').exists() == held
