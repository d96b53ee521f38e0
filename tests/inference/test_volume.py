import dataclasses

import inference_fakes as fakes
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synermedgen_jax.config.sampling import Guidance, SamplingConfig
from synermedgen_jax.core.modalities import ROUTES, route_named, routes_with
from synermedgen_jax.inference import volume
from synermedgen_jax.inference.volume import Synthesiser
from synermedgen_jax.models.bagel import Bagel
from synermedgen_jax.tasks.prompts import SHORT
from synermedgen_jax.training import flops

pytestmark = pytest.mark.usefixtures('quick_compiles')

SAMPLING = SamplingConfig(points=3, shift=3.0)


def synthesiser(
  weights=None,
  *,
  batch_size=4,
  sampling=SAMPLING,
  config=fakes.CONFIG,
  size=(8, 8),
):
  return Synthesiser(
    Bagel(config, fakes.COMPUTE),
    fakes.params(config) if weights is None else weights,
    fakes.Ascii(),
    config.image_geometry(vit_size=(8, 8), vae_size=size),
    sampling,
    SHORT,
    batch_size=batch_size,
  )


def still():
  """A model that predicts zero velocity, so that its samples are the noise."""
  weights = dict(fakes.params())
  weights['llm2vae'] = jax.tree.map(np.zeros_like, weights['llm2vae'])
  return weights


def test_synthesis_keeps_shape_range_and_reports_slices():
  done = []
  volume = synthesiser().synthesise(
    fakes.ROUTE, fakes.slices(5)[None], progress=done.append
  )
  assert volume.shape == (5, 8, 8)
  assert volume.dtype == np.float32
  assert np.abs(volume).max() <= 1
  assert np.abs(volume).min() < 1
  assert done == [4, 1]


def test_the_batch_size_changes_nothing():
  source = fakes.slices(4)
  expected = synthesiser().synthesise(fakes.ROUTE, source[None], seed=3)
  volume = synthesiser(batch_size=3).synthesise(
    fakes.ROUTE, source[None], seed=3
  )
  np.testing.assert_allclose(volume, expected, atol=1e-4)


def in_slabs(size: int, **options):
  return synthesiser(
    sampling=dataclasses.replace(SAMPLING, slab=size), **options
  )


@pytest.mark.parametrize('size', [2, 3])
def test_the_batch_size_changes_nothing_in_slabs(size):
  source = fakes.slices(7)
  expected = in_slabs(size, batch_size=12).synthesise(fakes.ROUTE, source[None])
  volume = in_slabs(size, batch_size=3).synthesise(fakes.ROUTE, source[None])
  np.testing.assert_allclose(volume, expected, atol=1e-4)


def test_a_slice_depends_on_the_slices_of_its_slabs_alone():
  source = fakes.slices(8)
  changed = source.copy()
  changed[0] = -changed[0]
  before, after = (
    in_slabs(3, batch_size=3).synthesise(fakes.ROUTE, s[None])
    for s in (source, changed)
  )
  # Slabs are 0-2, 2-4, 4-6 and 5-7.
  difference = np.abs(after - before).max((1, 2))
  assert (difference[:3] > 1e-3).all()
  np.testing.assert_array_equal(difference[3:], 0)
  alone = synthesiser().synthesise(fakes.ROUTE, source[None])
  assert np.abs(alone - before).max() > 1e-3


def test_slabs_are_combined_by_the_distance_from_their_ends(monkeypatch):
  """A slab's pictures show its number, by the order in which it is drawn."""

  def sample(model, params, prompts, seed, indices, grid, config):
    number = indices[:, :1, None, None] / 10
    return np.broadcast_to(number, (*indices.shape, 8, 8))

  monkeypatch.setattr(volume, '_sample_pictures', sample)
  done = []
  out = in_slabs(4).synthesise(
    fakes.ROUTE, fakes.slices(7)[None], progress=done.append
  )
  # Slabs start at 0, 2 and 3, with weights 1, 2, 2, 1.
  expected = [
    *(0, 0),
    (2 * 0 + 1 * 2) / 30,
    (1 * 0 + 2 * 2 + 1 * 3) / 40,
    (2 * 2 + 2 * 3) / 40,
    (1 * 2 + 2 * 3) / 30,
    0.3,
  ]
  np.testing.assert_allclose(out[:, 0, 0], expected, atol=1e-6)
  assert done == [4, 2, 1]


def test_a_volume_thinner_than_a_slab_is_one_slab():
  thin = fakes.slices(2)
  np.testing.assert_allclose(
    in_slabs(5).synthesise(fakes.ROUTE, thin[None]),
    in_slabs(2).synthesise(fakes.ROUTE, thin[None]),
    atol=1e-5,
  )


@settings(max_examples=20)
@given(
  count=st.integers(1, 30), size=st.integers(1, 5), batch_size=st.integers(1, 9)
)
def test_batches_hold_few_slabs_whatever_the_number_of_slices(
  count, size, batch_size
):
  """The pictures of a slice show its index, in every slab that draws it."""
  batches = []

  def sample(model, params, prompts, seed, indices, grid, config):
    batches.append(indices.shape)
    for part in jax.tree.leaves(prompts):
      assert len(part) == len(indices)
    pictures = indices[..., None, None] / count
    return np.broadcast_to(pictures, (*indices.shape, 8, 8))

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(volume, '_sample_pictures', sample)
    out = in_slabs(size, batch_size=batch_size).synthesise(
      fakes.ROUTE, fakes.slices(count)[None]
    )
  ((slabs, slices),) = set(batches)  # one program
  assert slices == min(size, count)
  assert slabs == 1 or slabs * slices <= batch_size
  np.testing.assert_allclose(out[:, 0, 0], np.arange(count) / count, atol=1e-6)


@pytest.mark.parametrize(('size', 'alike'), [(1, 9), (3, 8)])
def test_a_longer_volume_begins_as_a_shorter_one(size, alike):
  """Slabs of three are 0-2, 2-4, 4-6 and 6-8; the longer volume has 8-10 and
  10-12 too, so its slice 8 is a mean of two slabs."""
  model = in_slabs(size, batch_size=6)
  source = fakes.slices(13)
  longer, shorter = (
    model.synthesise(fakes.ROUTE, source[None, :count]) for count in (13, 9)
  )
  np.testing.assert_allclose(longer[:alike], shorter[:alike], atol=1e-5)
  for more, less in zip(longer[alike:9], shorter[alike:], strict=True):
    assert np.abs(more - less).max() > 1e-3


def test_few_slices_make_a_batch_of_the_next_power_of_two(monkeypatch):
  batches = []

  def autoencode(model, params, images):
    batches.append(len(images))
    return images[..., 0]

  monkeypatch.setattr(volume, '_autoencode', autoencode)
  model = synthesiser(batch_size=8)
  for count in range(1, 10):
    source = fakes.slices(count)
    np.testing.assert_allclose(model.reconstruct(source), source)
  assert batches == [1, 2, 4, 4, 8, 8, 8, 8, 8, 8]


def test_noise_depends_on_seed_and_slice_index_alone():
  tokens = np.stack(
    [
      jax.random.normal(
        jax.random.fold_in(jax.random.key(7), i), (4, fakes.CONFIG.latent_dim)
      )
      for i in range(3)
    ]
  )
  expected = fakes.call(
    fakes.params(), tokens.reshape(3, 2, 2, -1), method=Bagel.decode_latents
  )
  model = synthesiser(still())
  volume = model.synthesise(fakes.ROUTE, fakes.slices(3)[None], seed=7)
  np.testing.assert_allclose(
    volume, np.clip(expected[..., 0], -1, 1), atol=1e-5
  )
  other = model.synthesise(ROUTES[1], fakes.slices(2, seed=1)[None], seed=7)
  np.testing.assert_allclose(other, volume[:2], atol=1e-5)
  assert np.abs(
    model.synthesise(fakes.ROUTE, fakes.slices(3)[None]) - volume
  ).max()


def test_source_and_route_both_matter():
  model = synthesiser()
  volume = model.synthesise(fakes.ROUTE, fakes.slices(1)[None])
  other_source = model.synthesise(fakes.ROUTE, fakes.slices(1, seed=9)[None])
  other_route = model.synthesise(ROUTES[5], fakes.slices(1)[None])
  assert np.abs(volume - other_source).max() > 1e-3
  assert np.abs(volume - other_route).max() > 1e-3


@pytest.mark.parametrize(
  ('withheld', 'source_matters', 'route_matters'),
  [
    (('text',), True, False),  # no token without images
    (('vae', 'vit'), False, True),  # no token without text
    (('text', 'vae', 'vit'), False, False),  # no token at all
  ],
)
def test_guided_synthesis_without_some_conditions(
  withheld, source_matters, route_matters
):
  guided = SamplingConfig(3, 3.0, Guidance(2.0, 2.0), withheld=withheld)
  model = synthesiser(sampling=guided)
  source = fakes.slices(1)
  made = model.synthesise(fakes.ROUTE, source[None])
  other_source = model.synthesise(fakes.ROUTE, -source[None])
  other_route = model.synthesise(ROUTES[5], source[None])
  assert np.isfinite(made).all()
  assert (np.abs(made - other_source).max() > 1e-3) == source_matters
  assert (np.abs(made - other_route).max() > 1e-3) == route_matters


def test_every_source_and_its_place_matter():
  model = synthesiser()
  route = route_named('brats_t1+t2_to_flair')
  both = np.stack([fakes.slices(2), fakes.slices(2, seed=9)])
  made = model.synthesise(route, both)
  assert made.shape == (2, 8, 8)
  for other in (both[::-1], both[[0, 0]], both[[1, 1]]):
    assert np.abs(model.synthesise(route, other) - made).max() > 1e-3
  with pytest.raises(ValueError, match='shorter'):
    model.synthesise(route, both[:1])


def test_routes_with_equally_many_sources_share_a_program():
  model = synthesiser()
  both = np.stack([fakes.slices(1), fakes.slices(1, seed=9)])
  first, *others = routes_with(2)
  model.synthesise(first, both)
  before = volume._sample_pictures._cache_size()
  for route in others[:3]:
    model.synthesise(route, both)
  assert volume._sample_pictures._cache_size() == before


def test_one_program_serves_all_routes():
  guidance = Guidance(text=2.0, image=2.0)
  model = synthesiser(
    sampling=SamplingConfig(points=2, shift=3.0, guidance=guidance)
  )
  source = fakes.slices(1)
  model.synthesise(ROUTES[0], source[None])
  before = volume._sample_pictures._cache_size()
  for route in ROUTES[1:]:
    model.synthesise(route, source[None])
  assert volume._sample_pictures._cache_size() == before


def test_a_step_of_sampling_costs_the_contexts_of_guidance():
  """Text guidance adds a context, whose attention has fewer keys."""

  def operations(points, text):
    sampling = SamplingConfig(points, shift=1.0, guidance=Guidance(text, 1.0))
    model = synthesiser(sampling=sampling)
    return sum(flops.count(model.traced(fakes.ROUTE)).values())

  plain, guided = (
    np.diff([operations(points, text) for points in (2, 3, 4)])
    for text in (1.0, 2.0)
  )
  assert plain[0] == plain[1] > 0
  assert guided[0] == guided[1]
  assert plain[0] < guided[0] < 2 * plain[0]


def test_slices_of_another_side_come_back_at_their_own():
  volume = synthesiser().synthesise(fakes.ROUTE, fakes.slices(2, side=12)[None])
  assert volume.shape == (2, 12, 12)
  assert np.abs(volume).max() <= 1
  assert (
    synthesiser().reconstruct(fakes.slices(2, side=12)).shape == volume.shape
  )


def test_a_model_of_slices_higher_than_wide():
  """3 x 2 latent tokens are 12 x 8 pixels, in the order of their rows."""
  model = synthesiser(still(), size=(12, 8))
  noise = jax.random.normal(
    jax.random.fold_in(jax.random.key(7), 0), (6, fakes.CONFIG.latent_dim)
  )
  expected = fakes.call(
    fakes.params(), noise.reshape(1, 3, 2, -1), method=Bagel.decode_latents
  )
  source = np.zeros((1, 12, 8), np.float32)
  np.testing.assert_allclose(
    model.synthesise(fakes.ROUTE, source[None], seed=7),
    np.clip(expected[..., 0], -1, 1),
    atol=1e-5,
  )
  # Square slices fill the middle of such an image.
  assert model.synthesise(fakes.ROUTE, source[None, :, :8]).shape == (1, 8, 8)


def of_draws(draws: int, batch_size: int):
  return synthesiser(
    config=dataclasses.replace(fakes.CONFIG, detail=16),
    sampling=dataclasses.replace(SAMPLING, draws=draws),
    batch_size=batch_size,
  )


def test_the_batch_size_changes_nothing_with_draws():
  source = fakes.slices(5)
  few, many = (
    of_draws(5, batch_size).synthesise(fakes.ROUTE, source[None])
    for batch_size in (2, 8)
  )
  np.testing.assert_allclose(few, many, atol=1e-4)


def noise_of(slices, grain, shape=(40, 50)):
  return np.stack(
    [
      volume.continued_noise(jax.random.key(5), jnp.asarray(i), shape, grain)
      for i in slices
    ]
  )


@pytest.mark.parametrize('grain', [1.0, 2.5, 4.0])
def test_noise_continues_over_the_grain_alone(grain):
  noise = noise_of(range(12), grain)
  np.testing.assert_allclose(noise.std((1, 2)), 1, atol=0.06)
  correlation = np.corrcoef(noise.reshape(12, -1))
  apart = np.abs(np.subtract.outer(range(12), range(12)))
  assert np.abs(correlation[apart >= 2 * grain]).max() < 0.1
  if grain == 1:
    assert np.abs(correlation[apart == 1]).max() < 0.1
  else:
    # Neighbours share a node; two share both, or one and its whole weight.
    assert correlation[apart == 1].min() > 0.35


def test_independent_noise_depends_on_the_index_alone():
  for index in (0, 7):
    own = jax.random.fold_in(jax.random.key(5), index)
    np.testing.assert_array_equal(
      noise_of([index], 1.0)[0], jax.random.normal(own, (40, 50))
    )


def test_a_grain_makes_neighbours_alike():
  """A still model: its pictures are those of the noise."""
  source = fakes.slices(6)

  def steps(grain):
    sampling = dataclasses.replace(SAMPLING, grain=grain)
    model = synthesiser(still(), sampling=sampling)
    made = model.synthesise(fakes.ROUTE, source[None])
    return np.abs(np.diff(made, axis=0)).mean()

  assert steps(4.0) < 0.8 * steps(1.0)


def test_reconstruction_is_the_autoencoder_alone():
  source = fakes.slices(5)
  grid = fakes.call(
    fakes.params(), source[..., None], method=Bagel.encode_latents
  )
  expected = fakes.call(fakes.params(), grid, method=Bagel.decode_latents)
  done = []
  volume = synthesiser().reconstruct(source, progress=done.append)
  np.testing.assert_allclose(
    volume, np.clip(expected[..., 0], -1, 1), atol=1e-5
  )
  assert done == [4, 1]


def test_a_model_of_colours_gives_their_mean():
  config = dataclasses.replace(
    fakes.CONFIG,
    vit=dataclasses.replace(fakes.CONFIG.vit, channels=3),
    autoencoder=dataclasses.replace(fakes.CONFIG.autoencoder, channels=3),
  )
  model = synthesiser(config=config)
  source = fakes.slices(2)

  @jax.jit
  def decode(weights, images):
    return Bagel(config, fakes.COMPUTE).apply(
      {'params': weights},
      images,
      method=lambda m, x: m.decode_latents(m.encode_latents(x)),
    )

  decoded = decode(model.params, np.repeat(source[..., None], 3, axis=-1))
  assert np.ptp(np.asarray(decoded), axis=-1).max() > 0.1
  np.testing.assert_allclose(
    model.reconstruct(source), np.clip(decoded.mean(-1), -1, 1), atol=1e-5
  )


def test_no_slice_gives_no_slice():
  assert (
    synthesiser().synthesise(fakes.ROUTE, fakes.slices(0)[None]).shape[0] == 0
  )
