"""The PyTorch rival computes what the library computes."""

import dataclasses
import functools
import itertools
import json
from pathlib import Path
from unittest import mock

import flax.linen as nn
import jax
import nano
import numpy as np
import optax
import pytest

from benchmarks import shapes
from synermedgen_jax.core import trees
from synermedgen_jax.core.modalities import ROUTES
from synermedgen_jax.inference import sampling
from synermedgen_jax.input.tokenizer import project_tokenizer
from synermedgen_jax.models.bagel import Bagel, abstract_params
from synermedgen_jax.models.compute import Compute
from synermedgen_jax.tasks import synthesis
from synermedgen_jax.tasks.prompts import PAPER
from synermedgen_jax.tasks.registry import task_names
from synermedgen_jax.training import optim
from synermedgen_jax.training.objectives import (
  ObjectiveConfig,
  flow_and_text_sums,
  total,
)

torch = pytest.importorskip('torch')

from benchmarks.torch_rival.__main__ import main  # noqa: E402
from benchmarks.torch_rival.batch import prepare  # noqa: E402
from benchmarks.torch_rival.model import Rival, load_jax_params  # noqa: E402
from benchmarks.torch_rival.sampling import Sampler  # noqa: E402
from benchmarks.torch_rival.training import Trainer  # noqa: E402

pytestmark = [
  pytest.mark.usefixtures('quick_compiles'),
  # A CPU has no kernels for it; the masks are what is checked.
  pytest.mark.filterwarnings('ignore:flex_attention called without'),
]

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


def _computed(model):
  return Bagel(model, Compute(dtype='float32'))


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
    tasks = task_names(config.tasks)
    sums = flow_and_text_sums(_computed(model), params, batch, *inputs, tasks)
    return total(sums, objective, ('ntp', 'flow'))

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


@functools.cache
def expected(name: str, stage: str):
  """The library's loss, and the norm of the gradients of what trains."""
  model, packed, config = case(name, stage)
  params = random_params(model)
  scales = optim.multipliers(
    trees.flatten(params), tuple(map(tuple, config.trainable))
  )
  loss = jax_loss(model, config, packed, *given(packed, model.latent_dim))
  value, grads = jax.jit(jax.value_and_grad(loss))(params)
  trained = {n: g for n, g in trees.flatten(grads).items() if scales[n] > 0}
  return float(value), float(optax.tree.norm(trained))


CASES = list(itertools.product(['tiny', 'small'], ['stage1', 'stage2']))


def trainer_of(name: str, stage: str, *, remat: bool = False):
  """A trainer with the library's parameters, its batch and other inputs."""
  model, packed, config = case(name, stage)
  rival = Rival(model, remat=remat)
  load_jax_params(rival, random_params(model))
  weights = shapes.task_weights(config)
  batch = prepare(packed, CPU, by_example=True, task_weights=weights)
  inputs = torch_inputs(packed, *given(packed, model.latent_dim))
  return Trainer(rival, config), batch, inputs


@pytest.mark.parametrize(('name', 'stage'), CASES)
@pytest.mark.parametrize('remat', [False, True])
def test_losses_and_gradients_are_those_of_the_library(name, stage, remat):
  trainer, batch, inputs = trainer_of(name, stage, remat=remat)
  value, norm = expected(name, stage)
  loss = trainer.loss(batch, *inputs)
  np.testing.assert_allclose(loss.item(), value, rtol=1e-5)
  loss.backward()
  torch_norm = torch.nn.utils.get_total_norm([p.grad for p in trainer.trained])
  np.testing.assert_allclose(torch_norm.item(), norm, rtol=1e-4)
  frozen = set(trainer.model.parameters()) - set(trainer.trained)
  assert frozen
  assert all(p.grad is None for p in frozen)


@pytest.mark.parametrize('stage', ['stage1', 'stage2'])
def test_padded_rows_under_a_block_mask_have_the_same_loss(stage):
  trainer, _, _ = trainer_of('tiny', stage)
  model, packed, config = case('tiny', stage)
  batch = prepare(
    packed,
    CPU,
    by_example=False,
    task_weights=shapes.task_weights(config),
  )
  latents, noise, times = given(packed, model.latent_dim)
  inputs = ()
  if latents.shape[1]:
    ids = np.concatenate([[0], times[:, 1:].ravel()]).astype(np.float32)
    inputs = (torch.from_numpy(x) for x in (latents, noise, ids))
  with torch.no_grad():
    loss = trainer.loss(batch, *inputs)
  np.testing.assert_allclose(loss.item(), expected('tiny', stage)[0], rtol=1e-5)


def test_a_detached_und_stream_changes_gradients_and_not_the_loss():
  trainer, batch, inputs = trainer_of('tiny', 'stage2')
  norms = []
  for detach in (False, True):
    trainer.model.detach = detach
    loss = trainer.loss(batch, *inputs)
    np.testing.assert_allclose(
      loss.item(), expected('tiny', 'stage2')[0], rtol=1e-5
    )
    grads = torch.autograd.grad(loss, trainer.trained, allow_unused=True)
    norms.append(
      torch.nn.utils.get_total_norm([g for g in grads if g is not None]).item()
    )
  assert abs(norms[1] / norms[0] - 1) > 1e-3


def test_a_step_lowers_the_loss():
  trainer, batch, inputs = trainer_of('tiny', 'stage1')
  losses = [trainer.step(batch, None).item() for _ in range(5)]
  assert losses[-1] < losses[0]
  assert inputs == ()


@functools.cache
def library_samples():
  """(prompts, clean latents by context, noise, config, samples)."""
  config = shapes.sampling_config(points=4)
  examples = [
    synthesis.prompt(route, 'case', i, PAPER)
    for i, route in enumerate((ROUTES[0], ROUTES[-1]))
  ]
  rng = np.random.default_rng(1)
  pictures = rng.uniform(-1, 1, (2, nano.CANVAS, nano.CANVAS))
  tokenizer = project_tokenizer()
  prompts = sampling.pack_prompts(
    examples,
    tokenizer,
    nano.GEOMETRY,
    lambda ref: pictures[ref.index].astype(np.float32),
    {
      context: sampling.prompt_capacity(
        examples, tokenizer, nano.GEOMETRY, context
      )
      for context in config.guidance.contexts
    },
  )
  params = random_params(TINY)
  latents = {}
  for context, prompt in prompts.items():
    shape = (*prompt.conditions.gen.order.shape, TINY.latent_dim)
    latents[context] = np.zeros(shape, np.float32)
    if shape[1]:
      latents[context] = np.asarray(
        _computed(TINY).apply(
          {'params': params}, prompt.conditions, method=Bagel.row_latents
        )
      )
  count = prompts['full'].target.gen.order.shape[1]
  noise = rng.standard_normal((2, count, TINY.latent_dim)).astype(np.float32)
  samples = sampling.sample(_computed(TINY), params, prompts, noise, config)
  return prompts, latents, noise, config, np.asarray(samples)


@pytest.mark.parametrize('by_example', [True, False])
def test_samples_are_those_of_the_library(by_example):
  prompts, latents, noise, config, samples = library_samples()
  rival = Rival(TINY)
  load_jax_params(rival, random_params(TINY))
  sampler = Sampler(rival, prompts, latents, config, by_example=by_example)
  for _ in range(2):  # the second time over the first one's keys
    computed = sampler.run(torch.from_numpy(noise))
    np.testing.assert_allclose(computed, samples, atol=1e-4, rtol=1e-4)
  assert np.abs(samples - noise).max() > 0.1


def records(path: Path, *options: str):
  """The records that the command writes, run here."""
  with mock.patch('sys.argv', ['torch_rival', *options, f'--output={path}']):
    main()
  return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_command_writes_records(tmp_path):
  written = records(
    tmp_path / 'attention.jsonl',
    'attention',
    '--lengths=256,4096',
    '--heads=2,1',
    '--dim=8',
    '--repeats=1',
  )
  assert [r['shapes']['tokens'] for r in written] == [256, 4096]
  assert all(error < 1e-5 for error in written[1]['errors'].values())
  written += records(
    tmp_path / 'step.jsonl',
    'step',
    '--model=small',
    '--stage=stage2',
    '--rows=1',
    '--repeats=1',
    '--remat=full',
    '--detach_und',
  )
  written += records(
    tmp_path / 'sampling.jsonl',
    'sampling',
    '--model=small',
    '--points=3',
    '--batch=1,2',
    '--repeats=1',
  )
  assert [r['benchmark'] for r in written] == [
    'attention',
    'attention',
    'step',
    'sampling',
    'sampling',
  ]
  for record in written:
    assert record['seconds'] > 0
    assert record['tokens_per_second'] > 0
    assert record['peak_gb'] > 0
    assert record['torch'] == torch.__version__
