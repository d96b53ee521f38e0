"""Steps that make runs cost the same, in operations of the model.

Counted from shapes, attention dense, as XLA computes it on a CPU: what a step
costs then depends on its capacity and on what trains, not on how rows fill.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from synermedgen_jax.config.model import compute_of, model_shape
from synermedgen_jax.core.batch import Capacity
from synermedgen_jax.core.sharding import make_mesh
from synermedgen_jax.input.tokenizer import load_tokenizer
from synermedgen_jax.models.bagel import Bagel
from synermedgen_jax.planning.plan import abstract_step
from synermedgen_jax.training import run
from synermedgen_jax.training.config_checks import check
from synermedgen_jax.training.flops import step_flops

_DENSE = {'mot': 1.0, 'vit': 1.0}


def step_operations(config: ConfigDict) -> float:
  """Floating-point operations of one training step of `config`.

  Raises:
    ConfigError: naming the key that is wrong.
  """
  shape = model_shape(config)
  mesh = make_mesh(config.mesh)
  check(config, shape, load_tokenizer(config.tokenizer), mesh)
  model = Bagel(shape, compute_of(config))
  geometry = shape.image_geometry(**config.image)
  state, batch = abstract_step(
    config, model, mesh, geometry, Capacity(**config.capacity)
  )
  _, tx = run.optimiser(config, shape)
  parts = step_flops(model, tx, run.step_config(config), state, batch, _DENSE)
  return sum(parts.values())


def steps_for(operations: float, of_a_step: float) -> int:
  """The number of steps nearest to so many operations, at least one."""
  return max(round(operations / of_a_step), 1)
