"""parameters.txt lists trained and frozen parameters."""

import re

import jax
import jax.numpy as jnp
import nano
import optax
from etils.epath import Path

from synermedgen_jax.core.sharding import make_mesh
from synermedgen_jax.core.trees import flatten
from synermedgen_jax.models.bagel import abstract_params
from synermedgen_jax.training.parameter_table import (
  parameter_table,
  write_parameter_table,
)
from synermedgen_jax.training.train_state import TrainState, abstract_state


def nano_state(trains):
  names = flatten(abstract_params(nano.MODEL))
  return abstract_state(
    nano.BAGEL,
    {name: float(name.startswith(trains)) for name in names},
    optax.sgd(0.1),
    make_mesh((1, 1, 1)),
    ema=False,
  )


def rows(table):
  """Name: (shape, dtype, size, sharding)."""
  lines = [line.strip('|').split('|') for line in table.splitlines()]
  cells = [[c.strip() for c in line] for line in lines if len(line) == 5]
  return {name: others for name, *others in cells if name != 'Name'}


def total(table):
  (result,) = re.findall(r'^Total: ([\d,]+) -- ', table, re.MULTILINE)
  return int(result.replace(',', ''))


def test_each_parameter_is_in_the_table_of_its_kind_with_totals(tmp_path):
  state = nano_state('vit/')
  write_parameter_table(Path(tmp_path), state)
  text = (tmp_path / 'parameters.txt').read_text()
  trainable, frozen = text.split('Frozen parameters\n')
  assert trainable.startswith('Trainable parameters\n')
  assert rows(trainable).keys() == state.trainable.keys()
  assert rows(frozen).keys() == state.frozen.keys()
  assert total(trainable) == sum(x.size for x in state.trainable.values())
  assert total(frozen) == sum(x.size for x in state.frozen.values())


def test_a_row_has_shape_dtype_size_and_sharding():
  mesh = make_mesh((1, 1, 1))
  sharding = jax.sharding.NamedSharding(
    mesh, jax.sharding.PartitionSpec('fsdp', None)
  )
  kernel = jax.ShapeDtypeStruct((400, 30), jnp.bfloat16, sharding=sharding)
  state = TrainState(0, {'mot/kernel': kernel}, {}, (), {})
  assert rows(parameter_table(state)) == {
    'mot/kernel': ['(400, 30)', 'bfloat16', '12,000', "('fsdp', None)"]
  }
