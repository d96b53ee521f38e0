"""Codes of an image: the order of unmasking, and codes one after the other."""

import dataclasses
import functools

import inference_fakes as fakes
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from synermedgen_jax.config.sampling import Guidance, SamplingConfig
from synermedgen_jax.inference import sampling
from synermedgen_jax.inference.code_sampling import (
  generate_codes,
  one_by_one,
  unmask,
)
from synermedgen_jax.input import packing
from synermedgen_jax.models.bagel import Bagel
from synermedgen_jax.models.codes import shift_right, with_hidden

pytestmark = pytest.mark.usefixtures('quick_compiles')

PROMPT = fakes.synthesis_prompt('ab', 0)
MODELS = {
  name: Bagel(dataclasses.replace(fakes.CONFIG, generation=name), fakes.COMPUTE)
  for name in ('masked', 'autoregressive')
}


@functools.cache
def params(name):
  return fakes.params(MODELS[name].config)


def geometry(name):
  return MODELS[name].config.image_geometry(vit_size=(8, 8), vae_size=(8, 8))


def features(name):
  return packing.tokenise(
    PROMPT, fakes.Ascii(), geometry(name), fakes.read_slice
  )


def generate(name, config):
  capacities = {
    context: sampling.prompt_capacity(
      [PROMPT], fakes.Ascii(), geometry(name), context
    )
    for context in config.guidance.contexts
  }
  prompts = sampling.pack_prompts(
    [PROMPT], fakes.Ascii(), geometry(name), fakes.read_slice, capacities
  )
  return generate_codes(MODELS[name], params(name), prompts, config)


def complete_row(name, codes, hidden=None):
  """Logits of the target from one uncached forward, as training runs it."""
  parts = features(name)
  capacity = packing.Capacity(
    *(len(parts[part]) for part in ('und', 'gen', 'vit', 'vae_images'))
  )
  batch = packing.pack_rows([parts], capacity, geometry(name))

  @jax.jit
  def forward(weights):
    model = MODELS[name].bind({'params': weights})
    known = model.code_latents(codes)
    if hidden is None:
      shown, t = with_hidden(*shift_right(known, batch.noise_ids[:, 4:]))
    else:
      shown, t = with_hidden(known, hidden)
    rows = model.row_latents(batch).at[:, 4:].set(shown)
    times = jnp.concatenate([jnp.zeros((1, 4)), t], axis=1)
    states, _ = model.backbone(model.embed_batch(batch, rows, times))
    return model.code_logits(states['gen'])[:, 4:]

  return forward(params(name))


def codes_of(name, latents):
  """The codes whose latents these are."""
  every = MODELS[name].apply(
    {'params': params(name)}, jnp.arange(8192)[None], method='code_latents'
  )[0]
  error = np.square(np.asarray(latents)[0][:, None] - every[None]).sum(-1)
  assert (error.min(1) < 1e-8).all()
  return jnp.asarray(error.argmin(1))[None]


def test_every_autoregressive_code_is_the_best_after_those_before_it():
  """Cached prompts, the shift and the mask agree with a complete row."""
  codes = codes_of(
    'autoregressive', generate('autoregressive', SamplingConfig(2, 1.0))
  )
  logits = complete_row('autoregressive', codes)
  np.testing.assert_array_equal(logits.argmax(-1), codes)
  assert len(np.unique(codes)) > 1
  # Later codes, and the marker that sees them, are hidden from earlier ones.
  other = complete_row('autoregressive', codes.at[0, 2].add(1))
  np.testing.assert_allclose(other[0, :3], logits[0, :3], atol=1e-5)
  assert np.abs(other[0, 3] - logits[0, 3]).max() > 1e-3


def test_codes_unmasked_in_one_step_are_the_best_of_all_hidden():
  codes = codes_of('masked', generate('masked', SamplingConfig(2, 1.0)))
  hidden = jnp.ones((1, 4), bool)
  logits = complete_row('masked', jnp.zeros((1, 4), jnp.int32), hidden)
  np.testing.assert_array_equal(logits.argmax(-1), codes)
  # A token of a masked image sees those after it.
  other = complete_row(
    'masked', jnp.full((1, 4), 7), hidden.at[0, 3].set(False)
  )
  assert np.abs(other[0, 0] - logits[0, 0]).max() > 1e-3


@pytest.mark.parametrize('name', MODELS)
def test_guidance_changes_codes_and_keeps_their_shape(name):
  plain = generate(name, SamplingConfig(3, 1.0))
  guided = generate(name, SamplingConfig(3, 1.0, Guidance(text=9.0, image=9.0)))
  assert guided.shape == plain.shape == (1, 4, fakes.CONFIG.latent_dim)
  assert np.abs(guided - plain).max() > 1e-3
  off = Guidance(text=9.0, image=9.0, interval=(2.0, 3.0))
  np.testing.assert_allclose(
    generate(name, SamplingConfig(3, 1.0, off)), plain, atol=1e-5
  )


def surest_first(latents, hidden, guided):
  """Predicts the number of known codes; the last tokens are the surest."""
  known = (~hidden).sum(1, keepdims=True)
  code = jnp.broadcast_to(known, hidden.shape)
  sure = jnp.arange(hidden.shape[1]) + 1.0
  return jax.nn.one_hot(code, 9) * sure[None, :, None]


def test_the_surest_codes_are_kept_first():
  """Of 4 codes, sin(pi / 4) * 4 = 2.8 stay hidden after half of the time."""
  real = jnp.asarray([[True] * 4])
  codes = unmask(
    surest_first,
    lambda codes: codes[..., None].astype(float),
    real,
    SamplingConfig(3, 1.0),
  )
  # Two codes are predicted from nothing, the others knowing these two.
  np.testing.assert_array_equal(codes, [[2, 2, 0, 0]])


def test_padding_is_never_hidden():
  seen = []

  def logits(latents, hidden, guided):
    jax.debug.callback(lambda h: seen.append(np.asarray(h)), hidden)
    return surest_first(latents, hidden, guided)

  real = jnp.asarray([[True, True, True, False]])
  unmask(
    logits, lambda c: c[..., None].astype(float), real, SamplingConfig(4, 1.0)
  )
  jax.effects_barrier()
  assert len(seen) == 3
  assert not any(hidden[0, 3] for hidden in seen)
  assert [int(hidden.sum()) for hidden in seen] == [3, 2, 1]


def test_codes_follow_one_another():
  """Each code is the one before it plus one; the first is 5."""

  def logits(latents, hidden, guided):
    return jax.nn.one_hot(
      jnp.where(hidden, 5, latents[..., 0].astype(int) + 1), 12
    )

  codes = one_by_one(
    logits,
    lambda codes: codes[..., None].astype(float),
    jnp.ones((2, 4), jnp.int32),
    SamplingConfig(2, 1.0),
  )
  np.testing.assert_array_equal(codes, [[5, 6, 7, 8]] * 2)


def test_a_causal_target_is_packed_with_intervals_of_its_own():
  parts = features('autoregressive')
  gen, und = parts['gen'][4:], parts['und'][-2:]
  order, start = (packing.GEN.index(c) for c in ('order', 'visible_from'))
  np.testing.assert_array_equal(gen[:, start], gen[:, order])
  np.testing.assert_array_equal(und[:, start], und[:, order])
  # The source stays as it is, and so does a target of other models.
  plain = features('masked')
  np.testing.assert_array_equal(parts['gen'][:4], plain['gen'][:4])
  np.testing.assert_array_equal(plain['gen'][4:, start], [16] * 4)
