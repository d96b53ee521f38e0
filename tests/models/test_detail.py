"""The detail path: which sources a target has, and what it adds."""

import dataclasses
import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import span_packs
from hypothesis import strategies as st
from test_bagel import batch
from tiny_models import BAGEL, COMPUTE, fill

from synermedgen_jax.core.batch import Layout
from synermedgen_jax.core.trees import flatten
from synermedgen_jax.models import bagel, detail
from synermedgen_jax.models.canvases import (
  Sources,
  grids_of,
  sources_of_prompts,
  targets_of,
)
from synermedgen_jax.models.detail import detail_unet
from synermedgen_jax.training import objectives
from synermedgen_jax.training.objectives import flow_and_text_sums

pytestmark = pytest.mark.usefixtures('quick_compiles')

CONFIG = dataclasses.replace(BAGEL, detail=16)
MODEL = bagel.Bagel(CONFIG, COMPUTE)
STRIDE = BAGEL.latent_stride
KEY = jax.random.key(4)
SIDE = 2 * STRIDE  # pixels of a canvas: 2 x 2 latent tokens

# Canvases: A, its target; B, C, their target, its clean copy, a second target.
PACK = [
  [('full', 4), ('causal', 2), ('noise', 4)],
  [
    *(('full', 4), ('full', 4), ('causal', 1), ('noise', 4)),
    *(('full', 4), ('causal', 1), ('noise', 4)),
  ],
]
IMAGES = np.repeat(
  [s[0] != 'causal' for e in PACK for s in e], [s[1] for e in PACK for s in e]
)
NOISED = {1: 1, 4: 2, 6: 3}  # canvas -> noise id
SEEN = {1: [0], 4: [2, 3], 6: [2, 3, 5]}


def row(padding: int = 0):
  """The gen stream of `PACK`, and its canvases; `padding` tokens after it."""
  order = span_packs.order_of(PACK)
  visible_from, visible_to = span_packs.intervals(PACK)
  example = np.repeat([1, 2], [sum(s[1] for s in e) for e in PACK])
  canvas = np.repeat(np.arange(7), 4)

  def stream(values):
    values = np.concatenate([np.asarray(values), np.zeros(padding, int)])
    return jnp.asarray(values)[None]

  gen = Layout(
    stream(order[IMAGES] * 0),
    stream(order[IMAGES]),
    stream(visible_from[IMAGES]),
    stream(visible_to[IMAGES]),
    stream(example[IMAGES]),
  )
  images = np.random.default_rng(0).uniform(-1, 1, (1, 7, SIDE, SIDE, 1))
  return batch(
    gen=gen,
    latent_index=stream(np.arange(28)),
    latent_positions=stream(np.arange(28) % 4),
    latent_offsets=stream(np.zeros(28, int)),
    noise_ids=stream([NOISED.get(c, 0) for c in canvas]),
    vae_images=jnp.asarray(images, jnp.float32),
    image_latents=4,
  )


@pytest.mark.parametrize('padding', [0, 5])
def test_a_target_has_the_clean_images_before_it_in_its_example(padding):
  packed = row(padding)
  targets = targets_of(packed, STRIDE)
  found = {}
  for t in np.flatnonzero(targets.real[0]):
    sources = targets.sources.images[0][targets.sources.seen[0, t]]
    found[int(targets.index[0, t])] = [
      int(np.flatnonzero((packed.vae_images[0] == s).all((1, 2, 3))).item())
      for s in sources
    ]
  assert found == SEEN
  np.testing.assert_array_equal(
    targets.images[0, :3], packed.vae_images[0, list(NOISED)]
  )
  assert not targets.sources.seen[0, 3:].any()


def test_tokens_of_targets_lie_on_their_grids():
  packed = row(padding=3)
  tokens = jnp.arange(31.0)[None, :, None] + 100
  grids = grids_of(tokens, packed, targets_of(packed, STRIDE), (2, 2))
  for t, canvas in enumerate(NOISED):
    expected = 100 + 4 * canvas + np.arange(4.0).reshape(2, 2)
    np.testing.assert_array_equal(grids[0, t, ..., 0], expected)


def test_every_image_of_a_prompt_is_a_source():
  packed = row()
  prompt = packed.replace(
    noise_ids=packed.noise_ids * 0,
    gen=packed.gen.replace(
      example_ids=jnp.where(jnp.arange(28) < 12, 1, 0)[None]
    ),
  )
  sources = sources_of_prompts(prompt, jnp.zeros((1, 1), int), STRIDE)
  np.testing.assert_array_equal(sources.seen, [[[1, 1, 1, 0, 0, 0, 0]]])
  assert sources.images is prompt.vae_images


def test_a_target_of_a_slab_has_the_source_of_its_slice():
  # A and its target; B, C, a target of each, and the clean copy of the first.
  offsets = np.repeat([0, 0, -1, 1, 1, 0, -1], 4)
  packed = row(padding=3)
  packed = packed.replace(
    latent_offsets=jnp.asarray(np.pad(offsets, (0, 3)))[None]
  )
  targets = targets_of(packed, STRIDE)
  seen = {
    int(index): targets.sources.seen[0, t].tolist()
    for t, index in enumerate(targets.index[0])
  }
  # Clean canvases in order: 0, 2, 3, 5, and padding.
  assert seen == {
    1: [True, *[False] * 5],
    4: [False, False, True, *[False] * 3],
    6: [False, True, *[False] * 4],
  }


def test_targets_of_a_slab_take_the_sources_of_their_slices_from_a_prompt():
  packed = row(padding=2)
  prompt = packed.replace(
    noise_ids=packed.noise_ids * 0,
    gen=packed.gen.replace(
      example_ids=jnp.where(jnp.arange(30) < 12, 1, 0)[None]
    ),
    latent_offsets=jnp.asarray(np.repeat([-1, 0, 1, 9, 9, 9, 9, 9], 4)[:30])[
      None
    ],
  )
  sources = sources_of_prompts(prompt, jnp.asarray([[1, -1, 0]]), STRIDE)
  np.testing.assert_array_equal(
    sources.seen[0], np.eye(7, dtype=bool)[[2, 0, 1]]
  )


@functools.cache
def random_params(config):
  return fill(bagel.abstract_params(config))


def new_params():
  """The parameters of `BAGEL` and a new detail path."""
  new = bagel.init_params(CONFIG, jax.random.key(0))
  return random_params(BAGEL) | {'detail': bagel.nn.unbox(new)['detail']}


@functools.partial(jax.jit, static_argnames='config')
def drawn(params, tokens, hidden, sources, noise, config=CONFIG):
  return bagel.Bagel(config, COMPUTE).apply(
    {'params': params}, tokens, hidden, sources, noise, method='pictures'
  )


def texture(draws, seed=3):
  rng = np.random.default_rng(seed)
  noise = rng.standard_normal((draws, 1, 1, SIDE, SIDE))
  return jnp.asarray(noise, jnp.float32)


def pictures(params, tokens, hidden, sources, config=CONFIG):
  """One draw, always with the same noise."""
  return drawn(params, tokens, hidden, sources, texture(1), config)[0]


def inputs(sources=2):
  rng = np.random.default_rng(1)
  tokens, hidden, images = (
    jnp.asarray(rng.standard_normal(shape), jnp.float32)
    for shape in (
      (1, 1, 2, 2, BAGEL.latent_dim),
      (1, 1, 2, 2, BAGEL.llm.hidden),
      (1, sources, SIDE, SIDE, 1),
    )
  )
  return tokens, hidden, Sources(images, jnp.ones((1, 1, sources), bool))


def test_a_new_path_changes_no_bit():
  plain = pictures(random_params(BAGEL), *inputs(), config=BAGEL)
  np.testing.assert_array_equal(pictures(new_params(), *inputs()), plain)


def test_a_draw_follows_its_own_noise_alone():
  params, noise = random_params(CONFIG), texture(3)
  three = drawn(params, *inputs(), noise)
  second = drawn(params, *inputs(), noise[1:2])
  np.testing.assert_allclose(three[1], second[0], rtol=1e-4, atol=1e-3)
  assert np.abs(three[0] - three[2]).max() > 1e-2


def test_draws_without_a_path_are_equal():
  two = drawn(random_params(BAGEL), *inputs(), texture(2), config=BAGEL)
  np.testing.assert_array_equal(two[0], two[1])


@pytest.mark.parametrize('factor', [1, 2, 4])
def test_pooled_noise_stays_white(factor):
  noise = np.random.default_rng(0).standard_normal((8, 64, 64, 1))
  pooled = detail.pooled(jnp.asarray(noise, jnp.float32), factor)[..., 0]
  assert pooled.shape == (8, 64 // factor, 64 // factor)
  assert float(pooled.std()) == pytest.approx(1, abs=0.05)
  neighbours = (pooled[:, 1:] * pooled[:, :-1]).mean()
  assert float(neighbours) == pytest.approx(0, abs=0.05)


def test_a_trained_path_follows_its_sources_and_hidden_states():
  params, (tokens, hidden, sources) = random_params(CONFIG), inputs()
  picture = pictures(params, tokens, hidden, sources)
  other = sources.replace(images=sources.images[:, ::-1])
  np.testing.assert_allclose(
    pictures(params, tokens, hidden, other), picture, rtol=1e-5, atol=1e-3
  )
  first = sources.replace(seen=jnp.asarray([[[True, False]]]))
  alone = Sources(sources.images[:, :1], first.seen[..., :1])
  np.testing.assert_allclose(
    pictures(params, tokens, hidden, first),
    pictures(params, tokens, hidden, alone),
    rtol=1e-5,
    atol=1e-3,
  )
  changed = hidden.at[0, 0, 0, 0].add(1.0)
  for different in (
    pictures(params, tokens, hidden, first),
    pictures(params, tokens, changed, sources),
  ):
    assert np.abs(different - picture).max() > 1e-2


def test_a_target_without_a_source_is_drawn_from_its_hidden_states():
  params, (tokens, hidden, sources) = random_params(CONFIG), inputs()
  none = sources.replace(seen=jnp.zeros((1, 1, 2), bool))
  picture = pictures(params, tokens, hidden, none)
  assert np.isfinite(picture).all()
  black = none.replace(images=none.images * 0)
  np.testing.assert_array_equal(
    pictures(params, tokens, hidden, black), picture
  )


@pytest.mark.parametrize(
  ('width', 'stride', 'words'),
  [(24, 8, 'multiple of 16'), (-16, 8, 'multiple of 16'), (16, 12, '12')],
)
def test_a_path_that_does_not_fit_is_refused(width, stride, words):
  with pytest.raises(ValueError, match=f'detail {width}: .*{words}'):
    detail_unet(width, stride)


@pytest.mark.parametrize(('stride', 'stages'), [(8, 4), (16, 5)])
def test_the_lowest_stage_has_one_place_per_latent_token(stride, stages):
  assert detail_unet(16, stride).stages == stages


def test_a_row_of_targets_alone_leaves_its_last_ones_out():
  packed = row()
  alone = packed.replace(noise_ids=jnp.arange(28)[None] // 4 + 1)
  targets = targets_of(alone, STRIDE)
  np.testing.assert_array_equal(targets.index, [np.arange(3)])
  assert targets.real.all()
  assert not targets.sources.seen.any()


def test_codes_have_no_detail_path():
  with pytest.raises(ValueError, match="no part in 'masked' generation"):
    dataclasses.replace(CONFIG, generation='masked')


def test_images_that_do_not_fill_their_canvas_are_refused():
  with pytest.raises(ValueError, match='fill their canvas'):
    targets_of(row().replace(image_latents=0), STRIDE)


def test_the_pixel_terms_of_equal_draws_are_absolute_errors():
  """A new path leaves the error of the decoded latents of the three targets."""
  packed = row()
  rng = np.random.default_rng(2)
  latents, noise = rng.standard_normal((2, 1, 28, CONFIG.latent_dim))
  t = jnp.where(packed.noise_ids > 0, 0.75, 0.0)

  @jax.jit
  def both(params):
    sums = flow_and_text_sums(
      MODEL, params, packed, latents, noise, t, ('synthesis',), texture_key=KEY
    )
    bound = MODEL.bind({'params': params})
    noised = (1 - t[..., None]) * latents + t[..., None] * noise
    hidden, _ = bound.backbone(bound.embed_batch(packed, noised, t))
    clean = noised - t[..., None] * bound.velocity(hidden['gen'])
    decoded = bound.decode_latents(clean.reshape(7, 2, 2, -1))
    error = decoded - packed.vae_images[0]
    return sums, error[jnp.array(list(NOISED))]

  sums, error = both(new_params())
  steps = [np.abs(np.diff(error, axis=axis)).mean((1, 2, 3)) for axis in (1, 2)]
  for term, expected in (
    ('pixels', np.abs(error).mean((1, 2, 3))),
    ('edges', steps[0] + steps[1]),
  ):
    total, count = sums[term]
    assert count == 3
    np.testing.assert_allclose(total, expected.sum(), 1e-5)


def test_the_score_of_two_draws_by_hand():
  def image(*values):
    return jnp.asarray(values, jnp.float32).reshape(1, 1, 1, -1, 1)

  # Errors 1 and 3 of one pixel, whose draws differ by 4; 2 and 2, by 0.
  score = objectives.crps(
    jnp.stack([image(1.0, 2.0), image(-3.0, 2.0)]), image(0.0, 0.0)
  )
  np.testing.assert_allclose(score, [[((1 + 3 - 4) / 2 + 2) / 2]])


@hypothesis.given(
  spread=st.floats(0.2, 1.8).filter(lambda s: abs(s - 1) > 0.15),
  shift=st.floats(-0.5, 0.5),
)
@hypothesis.settings(max_examples=10, deadline=None)
def test_draws_from_the_distribution_of_the_truth_score_best(spread, shift):
  rng = np.random.default_rng(0)
  truth = jnp.asarray(rng.standard_normal((1, 1, 200, 200, 1)))
  draws = jnp.asarray(rng.standard_normal((2, 1, 1, 200, 200, 1)))
  best = objectives.crps(draws, truth)
  assert float(best[0, 0]) < objectives.crps(spread * draws + shift, truth)


def test_every_parameter_of_the_path_learns():
  packed, params = row(), random_params(CONFIG)
  rng = np.random.default_rng(2)
  latents, noise = rng.standard_normal((2, 1, 28, CONFIG.latent_dim))
  t = jnp.where(packed.noise_ids > 0, 0.75, 0.0)

  @jax.jit
  @jax.grad
  def gradient(detail):
    sums = flow_and_text_sums(
      MODEL,
      params | {'detail': detail},
      packed,
      latents,
      noise,
      t,
      ('synthesis',),
      texture_key=KEY,
    )
    return sums['pixels'][0]

  for name, grad in flatten(gradient(params['detail'])).items():
    assert np.abs(grad).max() > 0, name
