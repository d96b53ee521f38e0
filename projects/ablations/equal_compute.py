"""Steps that make runs cost the same, in operations of the model.

Counted from shapes, attention dense, as XLA computes it on a CPU: what a step
costs then depends on its capacity and on what trains, not on how rows fill.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from synermedgen_jax.training.build import batch_shapes, build
from synermedgen_jax.training.flops import step_flops

_DENSE = {'mot': 1.0, 'vit': 1.0}


def step_operations(config: ConfigDict) -> float:
  """Floating-point operations of one training step of `config`.

  Raises:
    ConfigError: naming the key that is wrong.
  """
  run = build(config, data=False)
  parts = step_flops(
    run.model, run.tx, run.step, run.state, batch_shapes(run), _DENSE
  )
  return sum(parts.values())


def steps_for(operations: float, of_a_step: float) -> int:
  """The number of steps nearest to so many operations, at least one."""
  return max(round(operations / of_a_step), 1)
