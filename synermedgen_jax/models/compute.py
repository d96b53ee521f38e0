"""Compute settings of a model, independent of its shape and weights."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Compute:
  """Settings that change speed, memory and rounding, and nothing else.

  Attributes:
    dtype: dtype of activations and matrix products, and of parameters that do
      not train. Norms, softmax, rotary positions and losses are float32.
    remat: name of a policy in `layers.REMAT_POLICIES`: which activations each
      layer keeps for the backward pass.
    attention: name of an attention implementation
      (`interval_attention.IMPLEMENTATIONS`); None takes the platform's own.
    unroll: layers per iteration of the scan, at most all of them. More than 1
      is faster on a CPU and compiles more slowly.
  """

  dtype: str = 'bfloat16'
  remat: str = 'none'
  attention: str | None = None
  unroll: int = 1
