"""New words start as different known ones, also in the shipped weights."""

import re
from pathlib import Path

import commands
import numpy as np
import pytest

from projects.small_base.new_words import WORDS, start_as_known
from projects.small_base.scenes import questions
from synermedgen_jax.checkpoint.model import load_model
from synermedgen_jax.checkpoint.weights_folder import load_weights
from synermedgen_jax.core.modalities import ROUTES
from synermedgen_jax.input.tokenizer import project_tokenizer

SHIPPED = Path(__file__).parents[3] / 'weights' / 'small'


def token(word):
  (only,) = project_tokenizer().encode(word)
  return only


def vocabulary(seed=0):
  size = project_tokenizer().vocab_size
  rng = np.random.default_rng(seed)
  return {
    'embed_tokens': {'embedding': rng.normal(size=(size, 4))},
    'lm_head': {'kernel': rng.normal(size=(3, size))},
    'vit': {'kernel': np.ones(3)},
  }


def test_a_new_word_is_the_known_one_and_nothing_else_changes():
  before = vocabulary()
  words = (('CT', 'flat'), ('brain', 'nested'))
  after = start_as_known(before, project_tokenizer(), words)
  expected = vocabulary()
  rows = expected['embed_tokens']['embedding']
  columns = expected['lm_head']['kernel']
  rows[token('CT')] = rows[token('flat')]
  rows[token('brain')] = rows[token('nested')]
  columns[:, token('CT')] = columns[:, token('flat')]
  columns[:, token('brain')] = columns[:, token('nested')]
  np.testing.assert_array_equal(after['embed_tokens']['embedding'], rows)
  np.testing.assert_array_equal(after['lm_head']['kernel'], columns)
  np.testing.assert_array_equal(after['vit']['kernel'], np.ones(3))


def test_the_parameters_that_were_given_stay_as_they_were():
  given = vocabulary()
  start_as_known(given, project_tokenizer(), (('CT', 'flat'),))
  for part, name in (('embed_tokens', 'embedding'), ('lm_head', 'kernel')):
    np.testing.assert_array_equal(given[part][name], vocabulary()[part][name])


def test_two_words_may_change_places():
  before = vocabulary()
  words = (('CT', 'flat'), ('flat', 'CT'))
  after = start_as_known(before, project_tokenizer(), words)
  rows = before['embed_tokens']['embedding']
  np.testing.assert_array_equal(
    after['embed_tokens']['embedding'][[token('CT'), token('flat')]],
    rows[[token('flat'), token('CT')]],
  )


def test_a_word_of_several_tokens_is_named():
  with pytest.raises(ValueError, match="'abdomen' is 7 tokens"):
    start_as_known(vocabulary(), project_tokenizer(), (('abdomen', 'woven'),))


def test_every_name_of_a_route_starts_as_another_known_word():
  starts = dict(WORDS)
  names = {r.source.label for r in ROUTES} | {r.region.label for r in ROUTES}
  assert len(starts) == len(WORDS)
  assert set(starts) == names | {'modality'}
  assert len(set(starts.values())) == len(starts)
  vocabulary = set(re.findall(r'\w+', ' '.join(questions.every_text())))
  assert set(starts.values()) <= vocabulary


def test_the_shipped_weights_have_them():
  _, params = load_weights(SHIPPED)
  rows = params['embed_tokens']['embedding']
  columns = params['lm_head']['kernel'].T
  for new, known in WORDS:
    np.testing.assert_array_equal(rows[token(new)], rows[token(known)])
    np.testing.assert_array_equal(columns[token(new)], columns[token(known)])


def test_ship_writes_the_model_of_a_run_with_them(nano_runs, tmp_path):
  code, _, err = commands.run(
    'projects.small_base.ship',
    f'--workdir={nano_runs / "stage1"}',
    f'--output={tmp_path}',
  )
  assert code == 0, err
  _, shipped = load_weights(tmp_path)
  _, trained = load_model(nano_runs / 'stage1' / 'checkpoints')
  expected = trained['embed_tokens']['embedding'][token('flat')]
  rows = shipped['embed_tokens']['embedding']
  np.testing.assert_array_equal(rows[token('CT')], rows[token('flat')])
  np.testing.assert_allclose(rows[token('CT')], expected, rtol=1e-3, atol=1e-4)
