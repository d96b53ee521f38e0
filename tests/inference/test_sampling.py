import dataclasses
import functools
import itertools

import inference_fakes as fakes
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from synermedgen_jax.config.sampling import Guidance, SamplingConfig
from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.modalities import route_named
from synermedgen_jax.inference import sampling
from synermedgen_jax.inference.sampling import guide, integrate, sample
from synermedgen_jax.models.bagel import Bagel
from synermedgen_jax.tasks import synthesis
from synermedgen_jax.tasks.prompts import SHORT

pytestmark = pytest.mark.usefixtures('quick_compiles')

PROMPTS = (fakes.synthesis_prompt('ab', 0), fakes.synthesis_prompt('cdefg', 1))
SEVERAL = synthesis.prompt(
  route_named('brats_t1+t2_to_flair'), 'case', 0, SHORT
)
BOTH = Guidance(text=3.0, image=2.0)


def noise(rows: int):
  shape = (rows, 4, fakes.CONFIG.latent_dim)
  return jax.random.normal(jax.random.key(1), shape)


def pack(examples, guidance):
  capacities = {
    context: sampling.prompt_capacity(
      examples, fakes.Ascii(), fakes.GEOMETRY, context
    )
    for context in guidance.contexts
  }
  return sampling.pack_prompts(
    examples, fakes.Ascii(), fakes.GEOMETRY, fakes.read_slice, capacities
  )


def run(examples, config, start):
  prompts = pack(examples, config.guidance)
  return sample(fakes.MODEL, fakes.params(), prompts, start, config)


@functools.cache
def whole_row_velocity(prompt, context):
  """The velocity from one uncached forward over conditions and target."""
  dropped = sampling.dropped_spans(prompt, context)
  batch = fakes.pack(fakes.tokenise(prompt, dropped))

  @jax.jit
  def velocity(weights, latents, t):
    clean = batch.latent_index.shape[1] - 4

    def forward(model):
      rows = model.row_latents(batch)
      rows = jnp.concatenate([rows[:, :clean], latents], axis=1)
      times = jnp.where(batch.noise_ids > 0, t, 0.0)
      hidden, _ = model.backbone(model.embed_batch(batch, rows, times))
      return model.velocity(hidden['gen'])[:, clean:]

    return fakes.MODEL.apply({'params': weights}, method=forward)

  return functools.partial(velocity, fakes.params())


def sample_uncached(prompt, config, start):
  guidance = config.guidance
  times = config.timesteps
  latents = start
  for t, after in itertools.pairwise(times):
    velocities = {
      context: whole_row_velocity(prompt, context)(latents, t)
      for context in guidance.contexts
    }
    inside = guidance.interval[0] < t <= guidance.interval[1]
    v = guide(velocities, guidance) if inside else velocities['full']
    latents = latents - (t - after) * v
  return latents


@pytest.mark.parametrize(
  'guidance',
  [
    Guidance(),
    BOTH,
    dataclasses.replace(BOTH, renorm='text_channel', interval=(0.5, 0.9)),
    Guidance(image=2.0, renorm='channel'),
  ],
)
def test_cached_prompts_equal_complete_rows(guidance):
  config = SamplingConfig(points=4, shift=3.0, guidance=guidance)
  start = noise(1)
  cached = run(PROMPTS[:1], config, start)
  uncached = sample_uncached(PROMPTS[0], config, start)
  np.testing.assert_allclose(cached, uncached, atol=2e-4)
  assert np.abs(cached - start).max() > 0.1


def test_prompts_with_several_sources_equal_complete_rows():
  config = SamplingConfig(points=3, shift=3.0, guidance=BOTH)
  start = noise(1)
  cached = run((SEVERAL,), config, start)
  np.testing.assert_allclose(
    cached, sample_uncached(SEVERAL, config, start), atol=2e-4
  )


def test_prompts_of_other_lengths_in_the_batch_change_nothing():
  config = SamplingConfig(points=3, shift=3.0, guidance=BOTH)
  start = noise(2)
  together = run(PROMPTS, config, start)
  # The first prompt is the shorter one, padded in the batch.
  alone = run(PROMPTS[:1], config, start[:1])
  np.testing.assert_allclose(together[0], alone[0], atol=1e-4)
  assert np.abs(together[0] - together[1]).max() > 0.1


def test_scales_up_to_one_are_no_guidance():
  start = noise(1)
  plain = run(PROMPTS[:1], SamplingConfig(points=3, shift=3.0), start)
  off = Guidance(text=1.0, image=0.5, renorm='channel', renorm_min=0.5)
  assert off.contexts == ('full',)
  config = SamplingConfig(points=3, shift=3.0, guidance=off)
  np.testing.assert_array_equal(run(PROMPTS[:1], config, start), plain)


def test_guidance_needs_the_contexts_of_its_scales_alone():
  assert Guidance(text=2.0).contexts == ('full', 'no_text')
  assert Guidance(image=2.0).contexts == ('full', 'no_images')
  assert BOTH.contexts == ('full', 'no_text', 'no_images')


def test_contexts_leave_out_texts_or_images_but_never_the_target():
  prompt = PROMPTS[0]
  assert sampling.dropped_spans(prompt, 'full') == frozenset()
  assert sampling.dropped_spans(prompt, 'no_text') == frozenset({2})
  assert sampling.dropped_spans(prompt, 'no_images') == frozenset({0, 1})
  assert sampling.dropped_spans(SEVERAL, 'no_text') == frozenset({4})
  assert sampling.dropped_spans(SEVERAL, 'no_images') == frozenset(range(4))


def test_withheld_conditions_are_left_out_in_every_context():
  prompt = PROMPTS[0]
  for context, others in (
    ('full', set()),
    ('no_text', {2}),
    ('no_images', {0, 1}),
  ):
    for name, index in (('vae', 0), ('vit', 1), ('text', 2)):
      dropped = sampling.dropped_spans(prompt, context, (name,))
      assert dropped == others | {index}
  everything = sampling.dropped_spans(SEVERAL, 'full', ('text', 'vae', 'vit'))
  assert everything == frozenset(range(5))


def test_an_unknown_condition_is_refused():
  with pytest.raises(UserError, match=r'^withheld words: expected'):
    SamplingConfig(2, 1.0, withheld=('words',))


def test_the_target_is_packed_without_its_pixels():
  prompts = pack(PROMPTS, BOTH)
  for context, images in (('full', 1), ('no_text', 1), ('no_images', 0)):
    prompt = prompts[context]
    assert prompt.conditions.vae_images.shape == (2, images, 8, 8, 1)
    assert prompt.conditions.latent_index.shape == (2, 4 * images)
    assert prompt.target.vae_images.shape[1] == 0
    np.testing.assert_array_equal(prompt.target.token_ids, [[3, 4]] * 2)
    assert (prompt.target.noise_ids == 1).all()
  # The first prompt: 6 + 6 tokens of the source, 4 of the text.
  full = prompts['full'].target
  np.testing.assert_array_equal(full.und.order[0], [16, 21])
  np.testing.assert_array_equal(full.gen.order[0], [17, 18, 19, 20])
  # Its text takes 4 RoPE positions, each image one.
  assert (full.gen.positions == [[6], [9]]).all()
  assert (prompts['no_text'].target.gen.positions == 2).all()


def test_timesteps_go_from_noise_to_data():
  np.testing.assert_allclose(SamplingConfig(3, 3.0).timesteps, [1, 0.75, 0])
  np.testing.assert_allclose(
    SamplingConfig(5, 1.0).timesteps, [1, 0.75, 0.5, 0.25, 0]
  )


@pytest.mark.parametrize('points', [2, 7])
def test_a_straight_flow_is_integrated_exactly(points):
  start = noise(2)
  data = jnp.ones_like(start)
  end, _ = integrate(
    lambda latents, t, guided: (start - data, ()),
    start,
    SamplingConfig(points, 3.0),
  )
  np.testing.assert_allclose(end, data, atol=1e-5)


def test_a_curved_flow_takes_euler_steps():
  # dx/dt = t x over t = 1, 0.75, 0.
  end, last = integrate(
    lambda latents, t, guided: (t * latents, (latents, t)),
    jnp.full((1, 1, 1), 2.0),
    SamplingConfig(points=3, shift=3.0),
  )
  middle = 2.0 * (1 - 0.25 * 1.0)
  np.testing.assert_allclose(end, middle * (1 - 0.75 * 0.75), rtol=1e-6)
  # What the last velocity, at t = 0.75, came with.
  np.testing.assert_allclose(last[0], [[[middle]]], rtol=1e-6)
  np.testing.assert_allclose(last[1], 0.75)


def test_guidance_acts_above_the_low_end_up_to_the_high_end():
  config = SamplingConfig(
    points=5, shift=1.0, guidance=Guidance(interval=(0.25, 0.75))
  )
  # Steps start at 1, 0.75, 0.5, 0.25; the second and third are guided.
  end, _ = integrate(
    lambda latents, t, guided: (jnp.full_like(latents, guided), ()),
    jnp.zeros((1, 1, 1)),
    config,
  )
  np.testing.assert_allclose(end, -0.5)


# Two tokens of two numbers; norms 5 and 10.
FULL = [[3.0, 4.0], [6.0, 8.0]]
NO_TEXT = [[3.0, 4.0], [3.0, 4.0]]
NO_IMAGES = [[0.0, 0.0], [0.0, 0.0]]
# Text guidance of 3: [3, 4] and 3 * [6, 8] - 2 * [3, 4] = [12, 16].


def guided(**settings):
  guidance = Guidance(**settings)
  named = {'full': FULL, 'no_text': NO_TEXT, 'no_images': NO_IMAGES}
  velocities = {c: jnp.asarray([named[c]]) for c in guidance.contexts}
  return guide(velocities, guidance)[0]


def test_channel_renorm_scales_every_token_back():
  velocity = guided(text=3.0, renorm='channel')
  np.testing.assert_allclose(velocity, [[3, 4], [6, 8]], rtol=1e-6)
  # Image guidance of 2 from zero doubles; all of it is scaled back.
  velocity = guided(text=3.0, image=2.0, renorm='channel')
  np.testing.assert_allclose(velocity, [[3, 4], [6, 8]], rtol=1e-6)


def test_text_channel_renorm_leaves_image_guidance_as_it_is():
  velocity = guided(text=3.0, renorm='text_channel')
  np.testing.assert_allclose(velocity, [[3, 4], [6, 8]], rtol=1e-6)
  velocity = guided(text=3.0, image=2.0, renorm='text_channel')
  np.testing.assert_allclose(velocity, [[6, 8], [12, 16]], rtol=1e-6)


def test_global_renorm_scales_the_picture_back_as_a_whole():
  # Norms over both tokens: sqrt(5² + 10²) against sqrt(5² + 20²).
  factor = np.sqrt(125 / 425)
  velocity = guided(text=3.0, renorm='global')
  np.testing.assert_allclose(
    velocity, factor * np.asarray([[3, 4], [12, 16]]), rtol=1e-6
  )


def test_renorm_never_enlarges_and_keeps_to_its_least_factor():
  velocity = guided(text=3.0, renorm='channel', renorm_min=0.75)
  np.testing.assert_allclose(velocity, [[3, 4], [9, 12]], rtol=1e-6)
  # A guided velocity that is shorter stays so.
  shorter = guide(
    {
      'full': jnp.asarray([[[1.0, 0.0]]]),
      'no_text': jnp.asarray([[[1.5, 0.0]]]),
    },
    Guidance(text=2.0, renorm='channel'),
  )
  np.testing.assert_allclose(shorter, [[[0.5, 0.0]]], rtol=1e-6)


def test_rows_are_renormed_one_by_one():
  full = jnp.asarray([FULL, FULL])
  base = jnp.asarray([NO_TEXT, FULL])
  velocity = guide({'full': full, 'no_text': base}, Guidance(text=3.0))
  np.testing.assert_allclose(velocity[1], FULL, rtol=1e-6)
  np.testing.assert_allclose(velocity[0], guided(text=3.0), rtol=1e-6)


def test_sampled_tokens_unfold_to_a_picture():
  tokens = run(PROMPTS[:1], SamplingConfig(points=2, shift=3.0), noise(1))
  picture = fakes.call(
    fakes.params(), tokens.reshape(1, 2, 2, -1), method=Bagel.decode_latents
  )
  assert picture.shape == (1, 8, 8, 1)


def test_an_image_is_the_mean_of_its_draws():
  """The mean of five draws, which are made four at a time."""
  shape = dataclasses.replace(fakes.CONFIG, detail=16)
  config = SamplingConfig(points=2, shift=3.0)
  prompts, start = pack(PROMPTS, config.guidance), noise(2)
  texture = jax.random.normal(jax.random.key(2), (5, 2, 1, 8, 8))

  def images(texture):
    return sampling.sample_pictures(
      Bagel(shape, fakes.COMPUTE),
      fakes.params(shape),
      prompts,
      start,
      texture,
      (2, 2),
      config,
    )

  each = np.stack([images(texture[i : i + 1]) for i in range(5)])
  np.testing.assert_allclose(images(texture), each.mean(0), 1e-4, 1e-4)
  assert each.std(0).min() > 1e-3


def test_wrong_settings_are_named():
  with pytest.raises(ValueError, match=r"renorm 'rows'.*global, channel"):
    Guidance(renorm='rows')
  with pytest.raises(ValueError, match='interval'):
    Guidance(interval=(0.8, 0.2))
  with pytest.raises(ValueError, match='points 1: must be at least 2'):
    SamplingConfig(points=1, shift=3.0)
  with pytest.raises(ValueError, match='draws 0: must be at least 1'):
    SamplingConfig(points=2, shift=3.0, draws=0)
  with pytest.raises(ValueError, match='grain nan: must be at least 1'):
    SamplingConfig(points=2, shift=3.0, grain=float('nan'))


@pytest.mark.parametrize(
  ('name', 'shape'),
  [
    ('draws', {}),
    ('draws', {'generation': 'masked'}),
    ('grain', {'generation': 'masked'}),
    ('slab', {'generation': 'autoregressive'}),
  ],
)
def test_settings_without_effect_on_a_model_are_refused(name, shape):
  model = dataclasses.replace(fakes.CONFIG, **shape)
  with pytest.raises(UserError, match=rf'{name} 2: .*; set {name} to 1\.$'):
    SamplingConfig(2, 3.0, **{name: 2}).check(model)
  SamplingConfig(2, 3.0).check(model)


def test_settings_with_an_effect_are_accepted():
  model = dataclasses.replace(fakes.CONFIG, detail=16)
  SamplingConfig(2, 3.0, slab=3, draws=32, grain=2.5).check(model)
