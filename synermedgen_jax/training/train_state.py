"""Everything that changes in training, and how the mesh shards it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Protocol

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from synermedgen_jax.core.sharding import LOGICAL_RULES, param_shardings
from synermedgen_jax.core.trees import Flat, flatten, unflatten
from synermedgen_jax.models.compute import Compute


@flax.struct.dataclass
class TrainState:
  """All that changes while training, and the frozen constants.

  Attributes:
    step: number of updates, int32.
    trainable: float32 parameters that are differentiated.
    frozen: the others, in the compute dtype, without optimiser state.
    opt_state: state of the optimiser.
    ema: exponential moving average of `trainable`; empty if the run has none.
    memory: arrays that the objective carries from step to step, such as a pool
      of images; empty if it carries none.
  """

  step: jax.Array
  trainable: Flat
  frozen: Flat
  opt_state: Any
  ema: Flat
  memory: Flat = flax.struct.field(default_factory=dict)

  @property
  def params(self):
    """All parameters of the model, nested."""
    return unflatten({**self.trainable, **self.frozen})


class Model(Protocol):
  """What the loop trains: a `Bagel`, or a system of `baselines`.

  Attributes:
    config: its shape, a dataclass.
    compute: how it is computed.
  """

  config: Any
  compute: Compute

  def initial_params(self, key: jax.Array) -> Any:
    """Random float32 parameters, boxed with the names of their axes."""

  def abstract_params(self) -> Any:
    """Shapes of `initial_params`."""

  def initial_memory(self) -> Flat:
    """`TrainState.memory` before the first step."""


def create_state(
  model: Model,
  scales: Mapping[str, float],
  tx: optax.GradientTransformation,
  mesh: Mesh,
  *,
  seed: int,
  ema: bool,
  initial: Any = None,
) -> tuple[TrainState, Any]:
  """A fresh state on the mesh, and the shardings of its leaves.

  Args:
    model: its compute dtype is that of frozen parameters.
    scales: learning-rate multiplier per parameter; 0 = frozen.
    tx: the optimiser, over the trainable parameters.
    mesh: devices of the state.
    seed: random seed of the initialisation.
    ema: keep an exponential moving average.
    initial: nested parameters on the host to start from instead of random
      ones; every process has all of them.
  """
  create = functools.partial(_state_of, model, scales, tx, ema)
  abstract = abstract_state(model, scales, tx, mesh, ema=ema)
  shardings = jax.tree.map(lambda x: x.sharding, abstract)
  with jax.set_mesh(mesh), nn.logical_axis_rules(LOGICAL_RULES):
    if initial is None:
      init = jax.jit(
        lambda key: create(model.initial_params(key)),
        out_shardings=shardings,
      )
      return init(jax.random.key(seed)), shardings
    by_name = _param_shardings(model, mesh)
    placed = unflatten(
      {n: _place(x, by_name[n]) for n, x in flatten(initial).items()}
    )
    return jax.jit(create, out_shardings=shardings)(placed), shardings


def _place(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
  """Shards a host array that every process holds."""
  array = np.asarray(array)
  return jax.make_array_from_callback(array.shape, sharding, array.__getitem__)


def _param_shardings(model: Model, mesh: Mesh) -> dict[str, Any]:
  """Sharding of every parameter."""
  return flatten(param_shardings(model.abstract_params(), mesh))


def abstract_state(
  model: Model,
  scales: Mapping[str, float],
  tx: optax.GradientTransformation,
  mesh: Mesh,
  *,
  ema: bool,
) -> TrainState:
  """Shapes, dtypes and shardings of a state."""
  by_name = _param_shardings(model, mesh)
  replicated = NamedSharding(mesh, PartitionSpec())
  shapes = jax.eval_shape(
    functools.partial(_state_of, model, scales, tx, ema),
    model.abstract_params(),
  )
  return jax.tree_util.tree_map_with_path(
    # Moments and averages are sharded like their parameter.
    lambda path, x: jax.ShapeDtypeStruct(
      x.shape,
      x.dtype,
      sharding=by_name.get(getattr(path[-1], 'key', None), replicated),
    ),
    shapes,
  )


def _state_of(model: Model, scales, tx, ema: bool, params) -> TrainState:
  """The state that training starts from, with these parameters."""
  dtype = model.compute.dtype
  flat = flatten(nn.unbox(params))
  trainable = {
    n: x.astype(jnp.float32) for n, x in flat.items() if scales[n] > 0
  }
  frozen = {n: x.astype(dtype) for n, x in flat.items() if scales[n] == 0}
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    trainable=trainable,
    frozen=frozen,
    opt_state=tx.init(trainable),
    # A copy: the step donates its buffers one by one.
    ema=jax.tree.map(jnp.copy, trainable) if ema else {},
    memory=model.initial_memory(),
  )
