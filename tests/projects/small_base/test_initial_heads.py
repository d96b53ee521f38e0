"""Heads that start out comparing: who writes and who reads what."""

import dataclasses

import numpy as np
import pytest
from nano import initial_params

from synermedgen_jax.models.bagel import BagelConfig
from synermedgen_jax.models.presets import preset

pytestmark = pytest.mark.usefixtures('quick_compiles')


def small() -> BagelConfig:
  """The preset with as few layers as show it all, quick to compile."""
  model = preset('small')
  return dataclasses.replace(
    model,
    llm=dataclasses.replace(model.llm, layers=3, unroll=1),
    vit=dataclasses.replace(model.vit, layers=1, unroll=1),
  )


def test_what_is_read_of_source_and_candidate_is_compared_alike():
  """Layer 1 asks with what layer 0 read far away, of what it read nearby."""
  model = small()
  params = initial_params(model)
  und = params['mot']['layers']['und']
  d, group = model.llm.head_dim, model.llm.heads // model.llm.kv_heads
  out = np.array(und['o_proj']['kernel'][0])
  query = np.array(und['q_proj']['kernel'][1])[:, :d]
  key = np.array(und['k_proj']['kernel'][1])[:, :d]
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


def test_heads_that_are_left_to_words_start_as_ever_but_quietly():
  model = small()
  plain = dataclasses.replace(model, comparison_heads=False)
  started, ever = (
    initial_params(m)['mot']['layers']['und'] for m in (model, plain)
  )
  d, group = model.llm.head_dim, model.llm.heads // model.llm.kv_heads
  for layer, taken in enumerate([2 * group] + [1] * (model.llm.layers - 1)):
    free = np.s_[layer, taken * d :]
    np.testing.assert_allclose(
      started['o_proj']['kernel'][free],
      0.5 * ever['o_proj']['kernel'][free],
      rtol=1e-6,
    )
    queries = np.s_[layer, :, taken * d :]
    np.testing.assert_array_equal(
      started['q_proj']['kernel'][queries], ever['q_proj']['kernel'][queries]
    )


def test_heads_that_do_not_fit_are_refused():
  model = small()
  wide = dataclasses.replace(model.llm, head_dim=64)
  with pytest.raises(ValueError, match='third of the width'):
    initial_params(dataclasses.replace(model, llm=wide))
