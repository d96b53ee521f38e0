"""Numbers of steps at which runs need equally many operations.

Operations are counted from shapes with dense attention, as XLA computes it on a
CPU. So they depend on the capacity of rows and on the trained parameters, not
on the fill of rows.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from synermedgen_jax.training.build import batch_shapes, build
from synermedgen_jax.training.flops import step_flops

_DENSE = {'mot': 1.0, 'vit': 1.0, 'logits': 1.0}


def step_operations(config: ConfigDict) -> float:
  """Floating-point operations of one training step of `config`.

  Raises:
    ConfigError: naming the wrong key.
  """
  run = build(config, data=False)
  parts = step_flops(
    run.model, run.tx, run.step, run.state, batch_shapes(run), _DENSE
  )
  return sum(parts.values())


def steps_for(operations: float, per_step: float) -> int:
  """Number of steps that need about `operations` operations, at least one."""
  return max(round(operations / per_step), 1)
