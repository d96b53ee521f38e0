import importlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from synermedgen_jax.core import trees
from synermedgen_jax.models import bagel, presets
from synermedgen_jax.training import optim

pytestmark = pytest.mark.usefixtures('quick_compiles')

NAMES = ('vit/kernel', 'vit/bias', 'mot/und/kernel', 'mot/gen/kernel')


def adam(scales, rate=1.0, eps=1e-12, weight_decay=0.0, clip=1e9):
  return optim.optimizer(
    optax.constant_schedule(rate),
    scales,
    b1=0.9,
    b2=0.95,
    eps=eps,
    weight_decay=weight_decay,
    clip=clip,
  )


def first_updates(tx, grads, params=None):
  params = grads if params is None else params
  return tx.update(grads, tx.init(params), params)[0]


def test_the_first_row_that_matches_decides():
  table = ((r'vit/bias', 0.5), (r'vit/.*', 0.0), (r'.*', 1.0))
  assert optim.multipliers(NAMES, table) == {
    'vit/kernel': 0.0,
    'vit/bias': 0.5,
    'mot/und/kernel': 1.0,
    'mot/gen/kernel': 1.0,
  }


def test_a_row_matches_whole_names():
  with pytest.raises(ValueError, match='mot/und/kernel'):
    optim.multipliers(NAMES, ((r'vit/.*', 1), (r'und/.*', 1), (r'mot/gen', 1)))


def test_unmatched_parameters_are_all_named():
  with pytest.raises(
    ValueError, match='has no row for mot/und/kernel, mot/gen/kernel: add'
  ):
    optim.multipliers(NAMES, ((r'vit/.*', 1.0),))


def test_rows_that_match_nothing_are_named():
  table = ((r'.*', 1.0), (r'vae/.*', 0.0), (r'vit/.*', 0.0))
  # The last one would match, but never comes to decide.
  with pytest.raises(ValueError, match=r'match nothing: vae/\.\*, vit/\.\*\.'):
    optim.multipliers(NAMES, table)


@pytest.mark.parametrize(
  ('warmup', 'expected'),
  [(4, [0, 0.5, 1, 1.5, 2, 2, 2]), (1, [0, 2, 2]), (0, [2, 2, 2])],
)
def test_a_constant_rate_follows_a_linear_warm_up(warmup, expected):
  rate = optim.schedule(2.0, warmup, steps=5, decay='constant')
  np.testing.assert_allclose([rate(i) for i in range(len(expected))], expected)


def test_a_cosine_falls_to_zero_at_the_last_step():
  rate = optim.schedule(2.0, 2, steps=6, decay='cosine')
  # 2 (1 + cos(pi k / 4)) / 2 for k = 0 ... 4 after the warm-up.
  np.testing.assert_allclose(
    [rate(i) for i in range(8)],
    [0, 1, 2, 1 + 0.5**0.5, 1, 1 - 0.5**0.5, 0, 0],
    atol=1e-6,
  )


def test_an_unknown_decay_is_refused():
  with pytest.raises(
    ValueError, match=r"'step': expected constant, cosine, linear or poly"
  ):
    optim.schedule(1.0, 0, 10, 'step')


def test_linear_is_constant_for_half_of_the_steps():
  rate = optim.schedule(2.0, 0, 8, 'linear')
  np.testing.assert_allclose(
    [rate(step) for step in range(9)],
    [2, 2, 2, 2, 2, 1.5, 1, 0.5, 0],
    atol=1e-6,
  )


def test_poly_is_nnunets():
  rate = optim.schedule(2.0, 0, 10, 'poly')
  np.testing.assert_allclose(
    [rate(step) for step in (0, 4, 10)], [2, 2 * 0.6**0.9, 0], rtol=1e-5
  )


def test_sgd_has_nesterovs_momentum_and_decays_the_weights():
  """Two steps by hand: v = 0.9 v + g, update = -rate (g + 0.9 v)."""
  tx = optim.optimizer(
    optax.constant_schedule(0.1),
    {'a': 1.0},
    name='sgd',
    b1=0.9,
    b2=0.0,
    eps=0.0,
    weight_decay=0.5,
    clip=1e9,
  )
  params, state = {'a': jnp.asarray([2.0])}, None
  state = tx.init(params)
  expected, velocity = 2.0, 0.0
  for gradient in (1.0, -3.0):
    updates, state = tx.update({'a': jnp.asarray([gradient])}, state, params)
    params = optax.apply_updates(params, updates)
    total = gradient + 0.5 * expected
    velocity = 0.9 * velocity + total
    expected -= 0.1 * (total + 0.9 * velocity)
    np.testing.assert_allclose(params['a'], [expected], rtol=1e-6)


def test_multipliers_scale_updates():
  grads = {'a': jnp.asarray([3.0]), 'b': jnp.asarray([-5.0])}
  updates = first_updates(adam({'a': 1.0, 'b': 0.1}, rate=0.5), grads)
  # Adam's first step is the gradient's sign.
  np.testing.assert_allclose(updates['a'], [-0.5], rtol=1e-5)
  np.testing.assert_allclose(updates['b'], [0.05], rtol=1e-5)


def test_the_clip_is_global_and_comes_first():
  grads = {'a': jnp.asarray([3.0]), 'b': jnp.asarray([4.0])}
  tx = adam({'a': 1.0, 'b': 1.0}, eps=1.0, clip=1.0)
  updates = first_updates(tx, grads)
  # Clipped to 0.6 and 0.8; then g / (|g| + eps).
  np.testing.assert_allclose(updates['a'], [-0.6 / 1.6], rtol=1e-5)
  np.testing.assert_allclose(updates['b'], [-0.8 / 1.8], rtol=1e-5)


def test_decay_acts_on_matrices_alone():
  params = {'kernel': jnp.full((2, 2), 4.0), 'bias': jnp.full(2, 4.0)}
  grads = jax.tree.map(jnp.ones_like, params)
  tx = adam({'kernel': 1.0, 'bias': 1.0}, weight_decay=0.1)
  updates = first_updates(tx, grads, params)
  np.testing.assert_allclose(
    updates['kernel'], np.full((2, 2), -1.4), rtol=1e-5
  )
  np.testing.assert_allclose(updates['bias'], [-1, -1], rtol=1e-5)


def test_decay_leaves_vectors_of_stacked_layers_alone():
  """Scanned layers have a leading axis: (layers, ...)."""
  shapes = {
    'mot/layers/und/input_norm/scale': (2, 4),
    'mot/layers/und/q_proj/bias': (2, 4),
    'mot/layers/und/q_proj/kernel': (2, 4, 4),
    'embed_tokens/embedding': (8, 4),
  }
  params = {name: jnp.full(shape, 4.0) for name, shape in shapes.items()}
  nothing = jax.tree.map(jnp.zeros_like, params)
  tx = adam(dict.fromkeys(params, 1.0), weight_decay=0.1)
  updates = first_updates(tx, nothing, params)
  decays = {name: float(update.min()) for name, update in updates.items()}
  assert decays == {
    'mot/layers/und/input_norm/scale': 0.0,
    'mot/layers/und/q_proj/bias': 0.0,
    'mot/layers/und/q_proj/kernel': pytest.approx(-0.4),
    'embed_tokens/embedding': pytest.approx(-0.4),
  }


def test_second_moments_are_adams():
  tx = adam({'a': 1.0})
  params = {'a': jnp.zeros(1)}
  state = tx.init(params)
  for grad in (1.0, 3.0):
    updates, state = tx.update({'a': jnp.asarray([grad])}, state, params)
  first = (0.1 * 0.9 + 0.1 * 3) / (1 - 0.9**2)
  second = (0.05 * 0.95 + 0.05 * 9) / (1 - 0.95**2)
  np.testing.assert_allclose(updates['a'], [-first / second**0.5], rtol=1e-5)


def trainable_of(config_name: str) -> dict[str, bool]:
  """Parameter of the tiny model -> whether a config trains it."""
  module = importlib.import_module(config_name)
  config = module.get_config()
  shapes = bagel.abstract_params(presets.tiny())
  names = trees.flatten(nn.unbox(shapes))
  table = tuple(map(tuple, config.trainable))
  return {n: m > 0 for n, m in optim.multipliers(names, table).items()}


@pytest.mark.parametrize(
  ('config', 'trained', 'frozen'),
  [
    (
      'autoencoder',
      ['autoencoder/encoder', 'autoencoder/decoder'],
      ['autoencoder/latent_', 'mot/', 'vit/', 'embed_tokens', 'lm_head'],
    ),
    (
      'stage1',
      ['vit/', 'connector/', 'mot/layers/und/', 'mot/und_norm', 'lm_head'],
      ['autoencoder/', 'mot/layers/gen/', 'mot/gen_norm', 'llm2vae'],
    ),
    (
      'stage2',
      [
        'mot/layers/gen/',
        'mot/gen_norm',
        'vae2llm',
        'llm2vae',
        'time_embedder',
      ],
      ['autoencoder/', 'vit_pos_embed', 'latent_pos_embed'],
    ),
  ],
)
@pytest.mark.parametrize(
  'package', ['configs', 'configs.small', 'configs.tiny']
)
def test_a_stage_trains_the_listed_parameters(package, config, trained, frozen):
  if (package, config) == ('configs.small', 'autoencoder'):
    pytest.skip('weights/small has one')
  trains = trainable_of(f'{package}.{config}')
  for prefix, wanted in [(p, True) for p in trained] + [
    (p, False) for p in frozen
  ]:
    states = {t for name, t in trains.items() if name.startswith(prefix)}
    assert states == {wanted}, prefix


def test_frozen_parameters_have_no_optimiser_state():
  scales = optim.multipliers(NAMES, ((r'vit/.*', 0.0), (r'.*', 1.0)))
  trainable = {n: jnp.zeros(2) for n in NAMES if scales[n]}
  state = adam(scales).init(trainable)
  assert set(optax.tree.get(state, 'mu')) == {
    'mot/und/kernel',
    'mot/gen/kernel',
  }
  updates = first_updates(adam(scales), trainable)
  assert set(updates) == set(trainable)


def muon(scales, weight_decay=0.0):
  return optim.optimizer(
    optax.constant_schedule(0.1),
    scales,
    name='muon',
    b1=0.9,
    b2=0.95,
    eps=1e-8,
    weight_decay=weight_decay,
    clip=1e9,
  )


def test_muon_moves_a_matrix_along_all_its_directions_alike():
  kernel = jax.random.normal(jax.random.key(0), (6, 8))
  (update,) = first_updates(
    muon({'mot/kernel': 1.0}), {'mot/kernel': kernel}
  ).values()
  singular = np.linalg.svd(update, compute_uv=False)
  # 0.2 sqrt(8) along each, after five rough iterations (arXiv 2502.16982).
  np.testing.assert_allclose(singular, 0.1 * 0.2 * np.sqrt(8), rtol=0.35)
  assert np.linalg.cond(kernel) > 3
  assert float((update * kernel).sum()) < 0


def test_muon_treats_the_layers_of_a_stack_apart():
  stack = jax.random.normal(jax.random.key(0), (3, 4, 5))
  stack = stack.at[1].multiply(100.0)
  name = 'mot/layers/und/q_proj/kernel'
  together = first_updates(muon({name: 1.0}), {name: stack})[name]
  for layer in range(3):
    alone = first_updates(muon({name: 1.0}), {name: stack[layer]})[name]
    np.testing.assert_allclose(together[layer], alone, atol=1e-6)


def test_muon_takes_a_convolution_for_the_matrix_that_it_is():
  kernel = jax.random.normal(jax.random.key(0), (3, 3, 2, 5))
  conv, dense = 'autoencoder/encoder/conv_in/kernel', 'vit/kernel'
  update = first_updates(muon({conv: 1.0}), {conv: kernel})[conv]
  flat = {dense: kernel.reshape(18, 5)}
  expected = first_updates(muon({dense: 1.0}), flat)[dense]
  np.testing.assert_allclose(update.reshape(18, 5), expected, atol=1e-6)


def test_muon_leaves_vectors_and_tables_to_adam():
  names = ('vit/bias', 'embed_tokens/embedding', 'lm_head/kernel')
  grads = {
    name: jax.random.normal(jax.random.key(i), (4, 4)) + 3
    for i, name in enumerate(names)
  }
  updates = first_updates(muon(dict.fromkeys(names, 1.0), 0.5), grads)
  # Adam's first step with Nesterov's momentum, the same for any gradient; it
  # would not be if the parameters, which equal the gradients here, decayed.
  step = 0.1 * (0.9 * 0.1 / (1 - 0.9**2) + 1)
  for update in updates.values():
    np.testing.assert_allclose(update, -step, rtol=1e-4)


def test_muon_obeys_the_multipliers():
  kernel = jax.random.normal(jax.random.key(0), (4, 4))
  grads = {'mot/a/kernel': kernel, 'mot/b/kernel': kernel}
  updates = first_updates(
    muon({'mot/a/kernel': 1.0, 'mot/b/kernel': 0.25, 'vit/kernel': 0.0}), grads
  )
  np.testing.assert_allclose(
    updates['mot/b/kernel'], 0.25 * updates['mot/a/kernel'], rtol=1e-6
  )


def test_an_unknown_optimiser_is_named():
  with pytest.raises(ValueError, match="'lion': expected adamw, muon or sgd"):
    optim.optimizer(
      optax.constant_schedule(0.1),
      {},
      name='lion',
      b1=0.9,
      b2=0.95,
      eps=1e-8,
      weight_decay=0.0,
      clip=1.0,
    )


@pytest.mark.parametrize(
  ('name', 'part'),
  [
    ('mot/layers/und/q_proj/kernel', 'und'),
    ('mot/layers/gen/q_proj/kernel', 'gen'),
    ('mot/und_norm/scale', 'und'),
    ('mot/gen_norm/scale', 'gen'),
    ('vit/layers/q_proj/kernel', 'vit'),
    ('connector/fc1/bias', 'connector'),
    ('lm_head/kernel', 'lm_head'),
    ('latent_pos_embed', 'latent_pos_embed'),
    # Named after what it does, and no part of the generating expert.
    ('mot/layers/und/generic/kernel', 'und'),
  ],
)
def test_a_parameter_is_in_a_part_of_the_model(name, part):
  assert optim.part_of(name) == part


def test_every_parameter_of_a_model_is_in_one_of_few_parts():
  shapes = bagel.abstract_params(presets.tiny())
  names = trees.flatten(nn.unbox(shapes))
  parts = {optim.part_of(name) for name in names}
  assert parts == {
    'autoencoder',
    'vit',
    'connector',
    'und',
    'gen',
    'embed_tokens',
    'lm_head',
    'vae2llm',
    'llm2vae',
    'time_embedder',
    'latent_pos_embed',
    'vit_pos_embed',
  }
  for part in ('und', 'gen'):
    members = {name for name in names if optim.part_of(name) == part}
    assert members == {
      name
      for name in names
      if name.startswith((f'mot/layers/{part}/', f'mot/{part}_norm/'))
    }


def test_gradient_norms_by_hand():
  grads = {
    'vit/kernel': jnp.asarray([[1.0, -2.0], [2.0, 0.0]]),
    'mot/layers/und/kernel': jnp.asarray([2.0, -3.0]),
    'mot/und_norm/scale': jnp.asarray([6.0]),
    'lm_head/kernel': jnp.zeros(2),
  }
  norms = optim.gradient_norms(grads)
  assert {name: float(norm) for name, norm in norms.items()} == {
    'grad_norm': pytest.approx(58**0.5),  # 9 + 49
    'grad_norm/vit': 3.0,
    'grad_norm/und': 7.0,
    'grad_norm/lm_head': 0.0,
  }


def test_a_part_whose_gradient_is_not_finite_shows_in_the_total_norm():
  grads = {'vit/a': jnp.ones(2), 'mot/layers/gen/a': jnp.asarray([jnp.nan])}
  norms = optim.gradient_norms(grads)
  finite = {name: bool(jnp.isfinite(norm)) for name, norm in norms.items()}
  assert finite == {
    'grad_norm': False,
    'grad_norm/vit': True,
    'grad_norm/gen': False,
  }
