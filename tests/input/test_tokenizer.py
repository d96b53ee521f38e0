import pickle
import re

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers

from synermedgen_jax.core.modalities import (
  ROUTES,
  Modality,
  route_named,
  routes_with,
)
from synermedgen_jax.input import tokenizer as lib
from synermedgen_jax.tasks import prompts

TOKENIZER = lib.project_tokenizer()
TEXTS = sorted(set(prompts.every_text(prompts.SHORT)))


def test_special_ids():
  t = TOKENIZER
  specials = [t.pad, t.im_start, t.im_end, t.vision_start, t.vision_end]
  assert specials == [0, 1, 2, 3, 4]


@given(st.text())
def test_any_text_survives(text):
  assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


@given(
  st.lists(
    st.sampled_from([*lib.MARKERS, lib.PAD, '\n', ' ', 'A', 'CT', ' (MRI)'])
  )
)
def test_a_text_that_spells_a_marker_has_none(parts):
  text = ''.join(parts)
  ids = TOKENIZER.encode(text)
  assert not set(ids) & set(range(5))
  assert TOKENIZER.decode(ids) == text


def test_decoding_leaves_out_markers_and_padding():
  t = TOKENIZER
  ids = [t.im_start, *t.encode('A CT'), t.im_end, t.pad]
  assert t.decode(ids) == 'A CT'


@pytest.mark.parametrize('letter', prompts.LETTERS)
def test_a_letter_is_one_token_wherever_it_stands(letter):
  (token,) = TOKENIZER.encode(letter)
  assert TOKENIZER.encode(f'{letter} CT')[0] == token
  assert TOKENIZER.encode(f'CT {letter}')[1] == token
  assert TOKENIZER.encode(f'CT\n{letter} CT')[2] == token


@pytest.mark.parametrize('modality', sorted({r.source for r in ROUTES}))
def test_a_label_is_one_token_wherever_it_stands(modality):
  (token,) = TOKENIZER.encode(modality.label)
  assert TOKENIZER.encode(f'A {modality.label}')[1:] == [token]


def test_every_word_of_the_wordings_is_one_token():
  labels = '|'.join(re.escape(m.label) for m in Modality)
  words = {
    word
    for text in TEXTS
    for word in re.findall(rf'(?:{labels})(?!\w)|[\w-]+', text)
  }
  assert len(words) > 30
  for word in words:
    (token,) = TOKENIZER.encode(word)
    assert TOKENIZER.encode(f'A {word}')[1:] == [token]


def test_an_answer_has_two_tokens_a_panel():
  answer = prompts.mi_answer(
    [Modality.CT, Modality.T1CE, Modality.T1, Modality.MR]
  )
  assert len(TOKENIZER.encode(answer)) == 8
  assert TOKENIZER.decode(TOKENIZER.encode(answer)) == answer


def test_every_wording_survives():
  for text in TEXTS:
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


def test_a_list_of_sources_survives_in_known_pieces():
  """A comma is a token; 'and' is no word of the vocabulary, but its bytes."""
  for count in (2, 3):
    for route in routes_with(count):
      for wordings in prompts.PROMPTS.values():
        for text in wordings.describe(route):
          assert TOKENIZER.decode(TOKENIZER.encode(text)) == text
  one, two, three = (
    len(TOKENIZER.encode(prompts.SHORT.canonical(route_named(name))))
    for name in (
      'brats_t1_to_t1ce',
      'brats_t1+t2_to_t1ce',
      'brats_t1+t2+flair_to_t1ce',
    )
  )
  # ' ', 'an', 'd' and a label; then a comma and a label.
  assert (one, two, three) == (5, 9, 11)


def test_a_pickled_tokenizer_is_the_same():
  copy = pickle.loads(pickle.dumps(TOKENIZER))
  for text in (*TEXTS[:20], '<|im_end|> ü\n'):
    assert copy.encode(text) == TOKENIZER.encode(text)
  assert copy.vocab_size == TOKENIZER.vocab_size
  assert copy.im_end == TOKENIZER.im_end


def foreign(tmp_path, *specials):
  """A byte-level tokenizer.json with other specials than ours."""
  alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
  vocab = {char: i for i, char in enumerate(alphabet)}
  tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=[]))
  tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  tokenizer.decoder = tokenizers.decoders.ByteLevel()
  tokenizer.add_special_tokens(list(specials))
  path = tmp_path / 'tokenizer.json'
  tokenizer.save(str(path))
  return lib.Tokenizer.from_file(path)


def test_missing_markers_are_added_to_a_file_and_others_kept(tmp_path):
  t = foreign(tmp_path, '<|endoftext|>', '<|im_start|>', '<|im_end|>')
  assert (t.im_start, t.im_end) == (257, 258)
  assert (t.vision_start, t.vision_end) == (259, 260)
  assert t.vocab_size == 261
  text = 'convert <|im_end|> é'
  assert t.decode([t.im_start, *t.encode(text), t.im_end]) == text


def test_a_missing_file_is_named(tmp_path):
  path = tmp_path / 'none.json'
  with pytest.raises(FileNotFoundError, match=r'none\.json'):
    lib.Tokenizer.from_file(path)
