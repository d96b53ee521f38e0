import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec

from synermedgen_jax.core import sharding

DEVICE = jax.devices()[:1]


@pytest.mark.parametrize('shape', [(-1, 1, 1), (1, -1, 1), (1, 1, -1)])
def test_minus_one_takes_the_devices_that_are_left(shape):
  mesh = sharding.make_mesh(shape, DEVICE)
  assert dict(mesh.shape) == {'data': 1, 'fsdp': 1, 'tensor': 1}


@pytest.mark.parametrize(
  'shape', [(2, 1, 1), (1, 2, -1), (-1, -1, 1), (1, 1), (0, -1, 1), (-2, 1, 1)]
)
def test_a_shape_that_the_devices_do_not_fill_is_refused(shape):
  with pytest.raises(ValueError, match=r'does not fit 1 devices.*config\.mesh'):
    sharding.make_mesh(shape, DEVICE)


def test_rows_are_split_over_data_and_fsdp():
  mesh = sharding.make_mesh((1, 1, 1), DEVICE)
  assert sharding.batch_sharding(mesh).spec == PartitionSpec(('data', 'fsdp'))


def test_parameters_follow_the_names_of_their_axes():
  params = {
    'up': nn.LogicallyPartitioned(
      jnp.zeros((2, 4, 6)), ('layers', 'embed', 'mlp')
    ),
    'embedding': nn.LogicallyPartitioned(jnp.zeros((8, 4)), ('vocab', 'embed')),
    'bare': jnp.zeros(3),
  }
  mesh = sharding.make_mesh((1, 1, 1), DEVICE)
  specs = jax.tree.map(lambda s: s.spec, sharding.param_shardings(params, mesh))
  assert specs['up'] == PartitionSpec(None, 'fsdp', 'tensor')
  assert specs['embedding'] == PartitionSpec('tensor', 'fsdp')
  assert specs['bare'] == PartitionSpec()
