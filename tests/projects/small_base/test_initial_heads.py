"""Initial heads locate and compare; all other heads start small."""

import dataclasses
import functools

import numpy as np
import pytest

from projects.small_base.initial_heads import (
  STARTS,
  Start,
  initial_weights,
  with_heads,
)
from synermedgen_jax.models.bagel_config import BagelConfig
from synermedgen_jax.models.layers import rope, sincos_table
from synermedgen_jax.models.presets import preset

pytestmark = pytest.mark.usefixtures('quick_compiles')


def small() -> BagelConfig:
  """The preset with as few layers as show every kind of head."""
  model = preset('small')
  return dataclasses.replace(
    model,
    llm=dataclasses.replace(model.llm, layers=3),
    vit=dataclasses.replace(model.vit, layers=1),
  )


@functools.cache
def weights(*, comparison: bool = True):
  start = dataclasses.replace(STARTS['small'], comparison=comparison)
  return initial_weights(small(), start)


def test_source_and_candidate_are_compared_in_the_same_terms():
  """Layer 1 asks with what layer 0 read far away, of what it read nearby."""
  llm = small().llm
  params = weights()
  und = params['mot']['layers']['und']
  d, group = llm.head_dim, llm.heads // llm.kv_heads
  out = und['o_proj']['kernel'][0]
  query = und['q_proj']['kernel'][1][:, :d]
  key = und['k_proj']['kernel'][1][:, :d]
  near, far = out[:d], out[group * d : (group + 1) * d]
  np.testing.assert_allclose(near @ key, far @ query, atol=1e-5)
  assert np.abs(near @ key).max() > 0.5
  np.testing.assert_allclose(near @ query, 0, atol=1e-5)
  np.testing.assert_allclose(far @ key, 0, atol=1e-5)
  np.testing.assert_allclose(
    params['lm_head']['kernel'],
    0.1 * params['embed_tokens']['embedding'].T,
    rtol=1e-5,
  )


def test_heads_for_text_keep_their_values_and_start_small():
  llm = small().llm
  started, plain = (
    weights(comparison=c)['mot']['layers']['und'] for c in (True, False)
  )
  d, group = llm.head_dim, llm.heads // llm.kv_heads
  for layer, taken in enumerate([2 * group] + [1] * (llm.layers - 1)):
    free = np.s_[layer, taken * d :]
    np.testing.assert_allclose(
      started['o_proj']['kernel'][free],
      0.5 * plain['o_proj']['kernel'][free],
      rtol=1e-6,
    )
    queries = np.s_[layer, :, taken * d :]
    np.testing.assert_array_equal(
      started['q_proj']['kernel'][queries], plain['q_proj']['kernel'][queries]
    )


def test_position_tables_have_their_base_and_scale():
  params = weights()
  hidden = small().llm.hidden
  np.testing.assert_allclose(
    params['latent_pos_embed'], 3 * sincos_table(8, hidden, 2.0), rtol=1e-6
  )
  np.testing.assert_allclose(
    params['vit_pos_embed'], sincos_table(2, hidden, 2.0), rtol=1e-6
  )
  assert (params['mot']['layers']['gen']['q_norm']['scale'] == 2.0).all()


def test_position_heads_find_the_same_place_in_another_image():
  llm, params = small().llm, weights()
  table, gen = params['latent_pos_embed'], params['mot']['layers']['gen']
  rng = np.random.default_rng(0)
  # The contents of the tokens differ between the images, the positions do not.
  contents = 0.3 * rng.standard_normal((2, *table.shape)).astype(np.float32)

  def heads(image, kernel, rope_position):
    x = (table + contents[image]) @ kernel
    x = x.reshape(len(table), -1, llm.head_dim)
    x /= np.sqrt(np.mean(x**2, axis=-1, keepdims=True))
    positions = np.full((1, len(table)), rope_position)
    return np.asarray(rope(x[None], positions, llm.rope_theta)[0])

  group = llm.heads // llm.kv_heads
  for layer in range(llm.layers):
    queries = heads(0, gen['q_proj']['kernel'][layer], 9)[:, ::group]
    keys = heads(1, gen['k_proj']['kernel'][layer], 0)
    scores = np.einsum('qhd,khd->hqk', queries, keys)
    same = scores.argmax(axis=-1) == np.arange(len(table))
    assert same.mean() > 0.9


def test_heads_that_do_not_fit_are_refused():
  model = small()
  wide = dataclasses.replace(model.llm, head_dim=64)
  with pytest.raises(ValueError, match='a third of the width'):
    with_heads({}, dataclasses.replace(model, llm=wide), Start(comparison=True))


def test_the_given_parameters_do_not_change():
  given = {
    f'mot/layers/gen/{name}': np.ones((3, 96, 128), np.float32)
    for name in ('q_proj/kernel', 'k_proj/kernel')
  }
  given['mot/layers/gen/q_norm/scale'] = np.ones((3, 32), np.float32)
  with_heads(given, small(), Start())
  assert all((value == 1).all() for value in given.values())
