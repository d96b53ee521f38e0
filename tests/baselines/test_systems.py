"""Every system learns one pair, and each network from its own terms alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from synermedgen_jax.baselines.networks.adm_unet import ADMUNetConfig
from synermedgen_jax.baselines.networks.critic import CriticConfig
from synermedgen_jax.baselines.networks.ncsnpp import NCSNppConfig
from synermedgen_jax.baselines.networks.pix2pix_unet import Pix2PixUNetConfig
from synermedgen_jax.baselines.networks.resvit import ResViTConfig
from synermedgen_jax.baselines.pair_data import PairBatch
from synermedgen_jax.baselines.registry import SYSTEMS
from synermedgen_jax.baselines.system import Setting
from synermedgen_jax.core.modalities import route_named
from synermedgen_jax.core.sharding import make_mesh
from synermedgen_jax.core.trees import flatten, unflatten
from synermedgen_jax.inference.trained_system import SystemSynthesiser
from synermedgen_jax.models.autoencoder import Autoencoder, AutoencoderConfig
from synermedgen_jax.models.compute import Compute
from synermedgen_jax.models.unet import UNetConfig
from synermedgen_jax.training import (
  build_system,  # registers the objectives
  flops,
)
from synermedgen_jax.training.loop import StepConfig, make_train_step
from synermedgen_jax.training.objectives import ObjectiveConfig
from synermedgen_jax.training.train_state import create_state

pytestmark = pytest.mark.usefixtures('quick_compiles')
del build_system

SIDE = 32
STEPS = {'cyclegan': 80, 'bbdm': 400, 'syndiff': 300, 'selfrdb': 200}
NAMES = ('ct', 'mr')
# Terms of the loss that train critics.
CRITIC_TERMS = {'critic', 'penalty'}


AUTOENCODER = AutoencoderConfig(
  channels=1,
  ch=8,
  ch_mult=(1,),
  num_res_blocks=1,
  z_channels=4,
  space_to_depth=2,
  norm_groups=2,
)
DENOISER = NCSNppConfig(
  channels=8,
  multipliers=(1, 2),
  blocks=1,
  attention_levels=(),
  noise=8,
  style=16,
  mapping_layers=1,
  time=16,
)
JUDGE = CriticConfig(channels=4, down_blocks=3, time=16)
# Shapes that learn a pair in seconds; values differ from those of `small`.
TINY = {
  'unet': {'generator': UNetConfig(stages=3, width=8)},
  'pix2pix': {
    'generator': Pix2PixUNetConfig(levels=4, channels=8),
    'critic_channels': 8,
  },
  'cyclegan': {'blocks': 1, 'width': 8, 'critic_channels': 8},
  'bbdm': {
    'generator': ADMUNetConfig(
      channels=16, multipliers=(1, 2), blocks=1, out_channels=1
    ),
    'autoencoder': None,
  },
  'resvit': {
    'generator': ResViTConfig(
      width=8, blocks=2, vit_layers=1, vit_hidden=16, vit_heads=2, vit_mlp=16
    ),
    'critic_channels': 8,
  },
  'syndiff': {'denoiser': DENOISER, 'critic': JUDGE, 'width': 8, 'blocks': 1},
  'selfrdb': {'generator': DENOISER, 'critic': JUDGE},
}


def setting(name):
  return Setting(
    (SIDE, SIDE),
    NAMES,
    conditioned=not SYSTEMS[name].pair,
    autoencoder=AUTOENCODER,
  )


def system(name):
  cls = SYSTEMS[name]
  shape = dataclasses.replace(cls.preset('small', setting(name)), **TINY[name])
  return cls(shape, Compute(dtype='float32', remat='none'))


def pair():
  """Two pairs of discs of one size whose brightness is inverted."""
  y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
  disc = np.where(x**2 + y**2 < 10**2, 0.6, -0.8).astype(np.float32)
  ring = np.where(np.abs(np.hypot(x, y) - 8) < 2, 0.9, -disc)
  source = np.stack([disc, disc[::-1] * 0.9])[..., None]
  target = np.stack([ring, ring * 0.9])[..., None].astype(np.float32)
  ids = np.zeros(2, np.int32)
  return PairBatch(source, target, ids + 1, ids)


def state_of(model, tx):
  mesh = make_mesh((1, 1, 1), jax.devices()[:1])
  names = flatten(model.abstract_params())
  return create_state(
    model, dict.fromkeys(names, 1.0), tx, mesh, seed=0, ema=False
  )[0]


def ordered(model, batch):
  """The batch, whose source is the first modality for systems of a pair."""
  if not model.pair:
    return batch
  return PairBatch(
    batch.target, batch.source, batch.target_ids, batch.source_ids
  )


def some_slow(*slow):
  """All systems; the given ones take minutes."""
  return [
    pytest.param(name, marks=pytest.mark.slow) if name in slow else name
    for name in SYSTEMS
  ]


@pytest.mark.parametrize('name', some_slow('bbdm', 'syndiff', 'selfrdb'))
def test_a_system_learns_one_pair_better_than_the_mean(name):
  model = system(name)
  batch = jax.tree.map(jnp.asarray, ordered(model, pair()))
  tx = optax.adam(3e-3, b1=0.5)
  config = StepConfig(name, ObjectiveConfig(term_weights=model.weights))
  step = jax.jit(make_train_step(model, tx, config), donate_argnums=0)
  state = state_of(model, tx)
  for _ in range(STEPS.get(name, 120)):
    state, terms = step(state, batch)
  assert terms['skipped/loss'][0] == 0
  made = jax.jit(model.synthesise)(
    state.params,
    batch.source,
    batch.source_ids,
    batch.target_ids,
    jax.random.split(jax.random.key(1), 2),
  )
  assert made.shape == batch.target.shape
  assert np.abs(made).max() <= 1
  error = np.abs(made - batch.target).mean()
  mean = np.abs(batch.target.mean() - batch.target).mean()
  # A bridge draws from the posterior, with noise of its own.
  assert error < (0.75 if name == 'bbdm' else 0.5) * mean


def terms_of(model, batch):
  """(params -> mean of every term of the loss), with fixed random numbers."""
  memory = model.initial_memory()

  def means(params):
    key = jax.random.key(4)  # with a penalty
    if memory:
      sums, _ = model.sums(params, batch, key, memory)
    else:
      sums = model.sums(params, batch, key)
    return {name: total / count for name, (total, count) in sums.items()}

  return means


@pytest.mark.parametrize('name', some_slow('syndiff'))
def test_each_term_reaches_its_own_networks_alone(name):
  model = system(name)
  batch = jax.tree.map(jnp.asarray, ordered(model, pair()))
  params = model.initial_params(jax.random.key(0))
  jacobian = jax.jit(jax.jacrev(terms_of(model, batch)))(params)
  assert set(jacobian) <= set(model.weights)
  trained = set()
  for term, by_network in jacobian.items():
    reached = {
      network
      for network, part in by_network.items()
      if any(float(jnp.abs(x).max()) > 0 for x in jax.tree.leaves(part))
    }
    critics = {network for network in reached if network.startswith('critic')}
    if term in CRITIC_TERMS:
      assert reached == critics, term
    else:
      assert reached, term
      assert not critics, term
    trained |= reached
  assert trained == set(params) - set(model.frozen)


@pytest.mark.parametrize('name', SYSTEMS)
def test_every_term_has_the_weight_that_the_system_states(name):
  weights = ObjectiveConfig(term_weights=SYSTEMS[name].weights)
  for term, weight in SYSTEMS[name].weights.items():
    assert weights.weight(term) == weight > 0


@pytest.mark.parametrize('name', SYSTEMS)
def test_one_image_or_a_batch_is_the_same_at_test(name):
  model, batch = system(name), pair()
  params = model.initial_params(jax.random.key(0))
  keys = jax.random.split(jax.random.key(1), 2)
  made = jax.jit(model.synthesise)
  together = made(
    params, batch.source, batch.source_ids, batch.target_ids, keys
  )
  for i in range(2):
    one = slice(i, i + 1)
    alone = made(
      params,
      batch.source[one],
      batch.source_ids[one],
      batch.target_ids[one],
      keys[one],
    )
    np.testing.assert_allclose(alone[0], together[i], atol=2e-5)


@pytest.mark.parametrize('name', [n for n in SYSTEMS if not SYSTEMS[n].pair])
def test_a_conditioned_system_is_told_the_route(name):
  model, batch = system(name), pair()
  params = model.initial_params(jax.random.key(0))
  keys = jax.random.split(jax.random.key(1), 2)
  made = jax.jit(model.synthesise)
  ids = batch.source_ids, batch.target_ids
  # Conditions of norms start without effect.
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda x: x + rng.normal(0, 0.05, x.shape).astype(np.float32), params
  )
  there = made(params, batch.source, *ids, keys)
  back = made(params, batch.source, *ids[::-1], keys)
  assert np.abs(there - back).max() > 1e-4


@pytest.mark.parametrize('name', SYSTEMS)
def test_an_unknown_preset_is_refused_by_name(name):
  with pytest.raises(ValueError, match=f"unknown preset 'huge' of {name}"):
    SYSTEMS[name].preset('huge', setting(name))


def test_parameters_survive_flattening():
  params = system('unet').initial_params(jax.random.key(0))
  again = unflatten(flatten(params))
  assert jax.tree.structure(again) == jax.tree.structure(params)


@pytest.mark.parametrize(('name', 'passes'), [('pix2pix', 1), ('selfrdb', 20)])
def test_synthesis_costs_all_passes_of_the_generator(name, passes):
  """SelfRDB's bridge has ten steps of two recursions."""
  model = system(name)
  params = model.abstract_params()
  route = route_named('pelvis_mr_to_ct')
  whole = flops.count(SystemSynthesiser(model, params).traced(route))
  x = model.example(3 + 4 if name == 'selfrdb' else 1)
  rest = {'train': False, 'condition': model.example_condition()}
  if name == 'selfrdb':
    rest = {'t': jnp.zeros(1), 'z': jnp.zeros((1, DENOISER.noise))}
  once = flops.count(
    jax.make_jaxpr(
      lambda p: model._generator().apply({'params': p}, x, **rest)
    )(params['generator'])
  )
  assert whole['other'] == passes * once['other'] > 0


def test_the_best_of_a_bridge_in_latents_is_its_autoencoder():
  images = jnp.asarray(pair().source)
  pixels = system('bbdm')
  assert (pixels.reconstruct({}, images) == images).all()
  config = dataclasses.replace(pixels.config, autoencoder=AUTOENCODER)
  generator = dataclasses.replace(
    config.generator, out_channels=AUTOENCODER.z_channels
  )
  latents = dataclasses.replace(
    pixels, config=dataclasses.replace(config, generator=generator)
  )
  params = latents.initial_params(jax.random.key(0))
  bound = Autoencoder(AUTOENCODER, jnp.float32).bind(
    {'params': params['autoencoder']}
  )
  np.testing.assert_allclose(
    latents.reconstruct(params, images),
    bound.decode(bound.encode(images)),
    atol=1e-6,
  )
