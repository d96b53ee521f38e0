"""Contrastive loss of the ViT: pairs match, padding does not count."""

import jax
import nano
import numpy as np
import pytest

from projects.small_base.contrast import contrast_sums
from projects.small_base.scenes import questions, sources
from synermedgen_jax.core.batch import Capacity
from synermedgen_jax.input import packing
from synermedgen_jax.input.tokenizer import project_tokenizer

pytestmark = pytest.mark.usefixtures('quick_compiles')

SCENES = sources.SPLITS['train']


@pytest.fixture(scope='module')
def params():
  return nano.initial_params()


def batch(capacity, n=2):
  tokenizer = project_tokenizer()
  rows = []
  for seed in range(n):
    example = questions.pairs(SCENES, np.random.default_rng(seed))
    features = packing.tokenise(
      example, tokenizer, nano.GEOMETRY, lambda picture: picture.read()
    )
    row = packing.concatenate_row([features], capacity)
    rows.append(packing.finish_row(row, nano.GEOMETRY))
  return packing.to_batch(
    jax.tree.map(lambda *x: np.stack(x), *rows), nano.GEOMETRY
  )


@jax.jit
def sums(params, rows):
  key = jax.random.key(0)
  return contrast_sums(nano.BAGEL, params, rows, key, None, ('pairs',))


def test_every_picture_is_asked_for_among_those_of_all_rows(params):
  """Pictures that look alike leave a choice of one in eight."""
  rows = batch(Capacity(54, 0, 32, 0))
  alike = rows.replace(vit_patches=np.full_like(rows.vit_patches, 0.5))
  total, count = sums(params, alike)['contrast']
  assert count == 16  # four pairs a row, each asked for in both directions
  np.testing.assert_allclose(total / count, np.log(8), rtol=1e-5)


def test_padding_changes_nothing(params):
  tight = sums(params, batch(Capacity(54, 0, 32, 0)))
  loose = sums(params, batch(Capacity(66, 0, 44, 0)))
  for name, (total, count) in tight.items():
    np.testing.assert_allclose(loose[name][0], total, rtol=1e-4)
    assert loose[name][1] == count


def test_like_embeddings_find_each_other(params):
  """With both styles of a view shown as one picture, every pair is found."""
  rows = batch(Capacity(54, 0, 32, 0))
  patches = np.array(rows.vit_patches).reshape(2, 4, 2, 4, -1)
  patches[:, :, 1] = patches[:, :, 0]
  rows = rows.replace(vit_patches=patches.reshape(rows.vit_patches.shape))
  params = jax.tree.map(lambda x: x, params)
  und = params['mot']['layers']['und']
  kernel = np.array(und['v_proj']['kernel'])
  kernel[:, :, -4:] = kernel[:, :, :4]
  und['v_proj']['kernel'] = kernel
  right, count = sums(params, rows)['contrast_accuracy']
  assert right == count
