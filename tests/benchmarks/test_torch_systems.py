"""The PyTorch rival of two systems takes the steps that the library takes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from synermedgen_jax.baselines.networks import pix2pix_unet
from synermedgen_jax.baselines.pair_data import PairBatch
from synermedgen_jax.baselines.registry import SYSTEMS
from synermedgen_jax.baselines.system import Setting
from synermedgen_jax.core.sharding import make_mesh
from synermedgen_jax.core.trees import flatten
from synermedgen_jax.models.compute import Compute
from synermedgen_jax.models.unet import UNetConfig
from synermedgen_jax.training import (
  build_system,  # registers the objectives
  optim,
)
from synermedgen_jax.training.loop import StepConfig, make_train_step
from synermedgen_jax.training.objectives import ObjectiveConfig
from synermedgen_jax.training.train_state import create_state

torch = pytest.importorskip('torch')

from benchmarks.torch_rival import systems  # noqa: E402

pytestmark = pytest.mark.usefixtures('quick_compiles')
del build_system

SETTING = Setting((32, 32), ('ct', 'mr', 'pet'), conditioned=True)
TINY = {
  'unet': {
    'generator': UNetConfig(
      stages=3,
      width=4,
      group_size=2,
      residual_blocks=(1, 1, 1),
      decoder='residual',
      bare_shortcuts=True,
    )
  },
  # Four levels: none has dropout.
  'pix2pix': {
    'generator': pix2pix_unet.Pix2PixUNetConfig(levels=4, channels=4),
    'critic_channels': 4,
  },
}
# AdamW whose epsilon is far above rounding errors: gradients that are zero but
# for these do not decide the sign of an update.
CONFIG = ConfigDict(
  {
    'learning_rate': 1e-2,
    'b1': 0.5,
    'b2': 0.99,
    'eps': 1e-3,
    'weight_decay': 0.1,
  }
)


def system(name):
  cls = SYSTEMS[name]
  shape = dataclasses.replace(cls.preset('small', SETTING), **TINY[name])
  return cls(shape, Compute(dtype='float32', remat='none'))


def changed(params):
  """Parameters none of which is zero, so that conditions have an effect."""
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda x: np.asarray(x + rng.normal(0, 0.1, x.shape).astype(np.float32)),
    params,
  )


def pairs():
  rng = np.random.default_rng(1)
  source, target = rng.uniform(-1, 1, (2, 3, 32, 32, 1)).astype(np.float32)
  ids = np.array([[0, 1, 2], [2, 0, 1]], np.int32)
  return PairBatch(source, target, *ids)


def library_step(model, params):
  """Terms of the loss, and all parameters after one step of the loop."""
  tx = optim.optimizer(
    optax.constant_schedule(CONFIG.learning_rate),
    dict.fromkeys(flatten(params), 1.0),
    b1=CONFIG.b1,
    b2=CONFIG.b2,
    eps=CONFIG.eps,
    weight_decay=CONFIG.weight_decay,
    clip=1e9,
  )
  mesh = make_mesh((1, 1, 1), jax.devices()[:1])
  state, _ = create_state(
    model,
    dict.fromkeys(flatten(params), 1.0),
    tx,
    mesh,
    seed=0,
    ema=False,
    initial=params,
  )
  name = next(n for n, cls in SYSTEMS.items() if isinstance(model, cls))
  settings = StepConfig(name, ObjectiveConfig(term_weights=model.weights))
  state, terms = jax.jit(make_train_step(model, tx, settings))(
    state, jax.tree.map(jnp.asarray, pairs())
  )
  assert terms['skipped/loss'][0] == 0
  return terms, state.trainable


@pytest.mark.parametrize('name', TINY)
def test_a_step_is_that_of_the_library(name):
  model = system(name)
  params = changed(model.initial_params(jax.random.key(0)))
  terms, after = library_step(model, params)

  rival = systems.SYSTEMS[name](model.config)
  systems.load_jax_params(rival, params)
  before = {n: p.detach().clone() for n, p in rival.named_parameters()}
  assert len(before) == len(after)
  computed = systems.Trainer(rival, CONFIG).step(systems.prepare(pairs(), 3))

  for term, value in computed.items():
    total, count = terms[term]
    np.testing.assert_allclose(value, total / count, rtol=1e-4, err_msg=term)
  for parameter, value in rival.named_parameters():
    np.testing.assert_allclose(
      value.detach(),
      systems.from_jax(rival, parameter, after),
      atol=1e-4,
      err_msg=parameter,
    )
  moved = [
    (value - before[n]).abs().max().item()
    for n, value in rival.named_parameters()
  ]
  assert np.median(moved) > 3e-3


def test_the_inner_levels_of_a_deep_generator_are_dropped_in_training_alone():
  config = pix2pix_unet.Pix2PixUNetConfig(levels=6, channels=2)
  model = pix2pix_unet.Pix2PixUNet(config)
  image = np.random.default_rng(2).uniform(-1, 1, (1, 64, 64, 3))
  image = image.astype(np.float32)
  params = model.init(jax.random.key(0), image, train=False)['params']
  params = changed(params)
  rival = systems.Pix2PixUNet(config, inputs=3)
  systems.load_jax_params(rival, params)
  shown = torch.from_numpy(np.moveaxis(image, -1, 1)).contiguous()
  with torch.no_grad():
    tested = rival.eval()(shown)
    trained = rival.train()(shown)
  expected = model.apply({'params': params}, image, train=False)
  np.testing.assert_allclose(tested[:, 0], expected[..., 0], atol=1e-4)
  assert (trained - tested).abs().max() > 1e-3
