"""The PyTorch rival computes what the library computes."""

import dataclasses

import flax.linen as nn
import jax
import nano
import numpy as np
import optax
import pytest

from benchmarks import shapes
from synermedgen_jax.models.bagel import Bagel, abstract_params
from synermedgen_jax.training import optim
from synermedgen_jax.training.objectives import (
  ObjectiveConfig,
  flow_and_text_sums,
  total,
)

torch = pytest.importorskip('torch')

from benchmarks.torch_rival.batch import prepare  # noqa: E402
from benchmarks.torch_rival.model import Rival, load_jax_params  # noqa: E402
from benchmarks.torch_rival.training import Trainer  # noqa: E402

pytestmark = pytest.mark.usefixtures('quick_compiles')

CPU = torch.device('cpu')


# Two layers, and two query heads for every key head.
TINY = dataclasses.replace(
  nano.MODEL, llm=dataclasses.replace(nano.MODEL.llm, layers=2, heads=4)
)


def random_params(model):
  """Parameters none of which is zero, nor a norm's scale far from one."""
  shapes = nn.unbox(abstract_params(model))
  rng = np.random.default_rng(0)

  def leaf(path, shape):
    scale = 0.5 if model is TINY else 0.1
    value = rng.normal(0, scale, shape.shape) + ('scale' in path[-1].key)
    return value.astype(np.float32)

  return jax.tree_util.tree_map_with_path(leaf, shapes)


def case(name: str, stage: str):
  """(model, packed batch, config) of the stage: two rows with padding."""
  config = shapes.stage_config(stage, 'small')
  config.rows = 2
  model = TINY
  if name == 'tiny':
    gen = 0 if stage == 'stage1' else 16
    config.image = nano.IMAGE
    config.capacity = {'und': 160, 'gen': gen, 'vit': 40, 'images': gen // 4}
  else:
    model = shapes.model_shape(name)
  return model, shapes.sampled_batch(config, model), config


def given(batch, width: int):
  """Latents and noise (b, g, d), and timesteps by row and noise id."""
  rng = np.random.default_rng(3)
  shape = (*batch.gen.order.shape, width)
  latents, noise = rng.standard_normal((2, *shape), np.float32)
  noised = batch.noise_ids.max(initial=0)
  times = rng.uniform(0.1, 0.9, (len(latents), 1 + noised))
  times[:, 0] = 0
  return latents, noise, times.astype(np.float32)


def jax_loss(model, config, batch, latents, noise, times):
  """Parameters -> the loss that the stage's objective differentiates."""
  objective = ObjectiveConfig(**config.objective)
  inputs = (None, None, None)
  if latents.shape[1]:
    inputs = latents, noise, np.take_along_axis(times, batch.noise_ids, 1)

  def loss(params):
    sums = flow_and_text_sums(Bagel(model), params, batch, *inputs)
    return total(sums, objective)

  return loss


def torch_inputs(batch, latents, noise, times):
  """The same for the rival's one row without padding."""
  if not latents.shape[1]:
    return ()
  real = np.asarray(batch.gen.example_ids) > 0
  ids = np.concatenate([[0], times[:, 1:].ravel()])
  return tuple(
    torch.from_numpy(x.astype(np.float32))
    for x in (latents[real][None], noise[real][None], ids)
  )


@pytest.mark.parametrize('stage', ['stage1', 'stage2'])
@pytest.mark.parametrize('name', ['tiny', 'small'])
@pytest.mark.parametrize('remat', [False, True])
def test_losses_and_gradients_are_those_of_the_library(name, stage, remat):
  model, packed, config = case(name, stage)
  arrays = given(packed, model.latent_dim)
  params = random_params(model)
  scales = optim.multipliers(
    optim.flatten(params), tuple(map(tuple, config.trainable))
  )
  expected, grads = jax.jit(
    jax.value_and_grad(jax_loss(model, config, packed, *arrays))
  )(params)
  trained = {n: g for n, g in optim.flatten(grads).items() if scales[n] > 0}

  rival = Rival(model, remat=remat)
  load_jax_params(rival, params)
  trainer = Trainer(rival, config)
  weights = dict(config.objective.get('task_weights', {}))
  batch = prepare(packed, CPU, weights)
  loss = trainer.loss(batch, *torch_inputs(packed, *arrays))
  np.testing.assert_allclose(loss.item(), expected, rtol=1e-5)
  loss.backward()
  norm = torch.nn.utils.get_total_norm([p.grad for p in trainer.trained])
  np.testing.assert_allclose(norm.item(), optax.tree.norm(trained), rtol=1e-4)
  frozen = set(rival.parameters()) - set(trainer.trained)
  assert frozen
  assert all(p.grad is None for p in frozen)
