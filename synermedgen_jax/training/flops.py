"""Floating-point operations of a step, counted from its jaxpr.

Counts matrix products and convolutions, two operations per multiplication and
addition; the remaining operations are about one per cent. The body of a scan is
multiplied by its length; XLA's own count takes it once. A conditional counts
its largest branch; one whose scope states the share of the steps in which it
runs, all branches times that share.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import re
from collections.abc import Iterator, Mapping

import jax
import numpy as np
import optax
from jax.extend import core

from synermedgen_jax.core.batch import PackedBatch
from synermedgen_jax.models.bagel import Bagel
from synermedgen_jax.models.compute import Compute
from synermedgen_jax.models.kernels.block_pairs import NOTHING, what_blocks_hold
from synermedgen_jax.models.kernels.tpu import Blocks
from synermedgen_jax.training.loop import StepConfig, make_train_step
from synermedgen_jax.training.train_state import TrainState

# Scope of a conditional that runs in a share of the steps.
_SHARE = re.compile(r'share=([0-9.]+)')
ATTENTION_SCOPE = 'interval_attention'
LOGITS_SCOPE = 'lm_head'


def count(jaxpr: core.ClosedJaxpr) -> dict[str, float]:
  """Operations by part: attention's products, the logits, and the rest.

  Returns:
    {'attention/vit', 'attention/mot', 'logits', 'other'} -> operations.
    Attention is counted dense and logits for all tokens, as traced, because
    masks and labels are data.
  """
  operations_of = collections.Counter()
  for scope, operations in _products(jaxpr.jaxpr, '', 1.0):
    part = 'other'
    if ATTENTION_SCOPE in scope:
      part = 'attention/vit' if 'vit' in scope else 'attention/mot'
    elif LOGITS_SCOPE in scope:
      part = 'logits'
    operations_of[part] += operations
  return dict(operations_of)


def _products(
  jaxpr: core.Jaxpr, scope: str, times: float
) -> Iterator[tuple[str, float]]:
  """(scope, operations) of every product, in all inner jaxprs."""
  for eqn in jaxpr.eqns:
    inside = f'{scope}/{eqn.source_info.name_stack}'
    name = eqn.primitive.name
    if name == 'dot_general':
      yield inside, times * _dot_operations(eqn)
    elif name == 'conv_general_dilated':
      yield inside, times * _convolution_operations(eqn)
    elif name == 'while':
      raise ValueError('A loop of unknown length cannot be counted.')
    elif name == 'cond' and not _SHARE.search(inside):
      branches = [
        [*_products(branch.jaxpr, inside, times)]
        for branch in eqn.params['branches']
      ]
      yield from max(branches, key=lambda b: sum(count for _, count in b))
    else:
      turns = eqn.params['length'] if name == 'scan' else 1
      if name == 'cond':
        share = _SHARE.search(inside)
        turns, inside = float(share[1]), inside.replace(share[0], '')
      for inner in _inner_jaxprs(eqn):
        yield from _products(inner, inside, times * turns)


def _inner_jaxprs(eqn) -> Iterator[core.Jaxpr]:
  for value in eqn.params.values():
    for item in value if isinstance(value, tuple | list) else (value,):
      if isinstance(item, core.ClosedJaxpr):
        yield item.jaxpr
      elif isinstance(item, core.Jaxpr):
        yield item


def _dot_operations(eqn) -> float:
  (contracted, _), _ = eqn.params['dimension_numbers']
  left = eqn.invars[0].aval.shape
  depth = math.prod(left[axis] for axis in contracted)
  return 2.0 * eqn.outvars[0].aval.size * depth


def _convolution_operations(eqn) -> float:
  """Operations of a convolution; zeros inserted by dilation are not counted."""
  p = eqn.params
  kernel = eqn.invars[1].aval.shape
  spec = p['dimension_numbers'].rhs_spec
  per_output = math.prod(kernel) / kernel[spec[0]]
  holes = math.prod(p['lhs_dilation'])
  groups = p['batch_group_count']
  return 2.0 * eqn.outvars[0].aval.size * per_output / holes / groups


def step_flops(
  model: Bagel,
  tx: optax.GradientTransformation,
  config: StepConfig,
  state: TrainState,
  batch: PackedBatch,
  shares: Mapping[str, float],
) -> dict[str, float]:
  """Operations of a training step, without recomputation.

  Args:
    model, tx, config: model, optimiser and step constants of the run.
    state, batch: arrays or shapes.
    shares: shares of attention and logits that are needed, from
      `needed_shares`.

  Returns:
    {'attention', 'other'}.
  """
  plain = Bagel(model.config, Compute(model.compute.dtype, attention='xla'))
  unchunked = dataclasses.replace(
    config.objective, logit_chunk=max(batch.labels.shape[1], 1)
  )
  step = make_train_step(
    plain, tx, dataclasses.replace(config, objective=unchunked)
  )
  counted = count(jax.make_jaxpr(step)(state, batch))
  attention = sum(
    counted.get(f'attention/{part}', 0.0) * shares[part]
    for part in ('vit', 'mot')
  )
  logits = shares['logits'] * counted.get('logits', 0.0)
  return {'attention': attention, 'other': counted.get('other', 0.0) + logits}


def needed_shares(batch: PackedBatch) -> dict[str, float]:
  """Shares of what `count` counts in full that a batch needs.

  Returns:
    'mot' and 'vit': attention blocks that hold a visible pair. 'logits': und
    tokens with a label.
  """
  labelled = float(np.mean(np.asarray(batch.ntp_weight) > 0))
  return {**active_blocks(batch), 'logits': labelled}


def active_blocks(batch: PackedBatch) -> dict[str, float]:
  """Shares of the kernels' blocks that hold a visible pair, per transformer."""

  def joined(field):
    return np.concatenate(
      [getattr(batch.und, field), getattr(batch.gen, field)], axis=1
    )

  return {
    'mot': _share(
      joined('order'), joined('visible_from'), joined('visible_to')
    ),
    'vit': _vit_share(batch),
  }


def _vit_share(batch: PackedBatch) -> float:
  rows, length = batch.vit_positions.shape
  if batch.image_patches:
    used = np.asarray(batch.vit_visible_to) > 0
    return float(used.mean()) if length else 0.0
  patches = np.broadcast_to(np.arange(length), (rows, length))
  return _share(patches, batch.vit_visible_from, batch.vit_visible_to)


def _share(order, visible_from, visible_to) -> float:
  length = order.shape[1]
  if not length:
    return 0.0
  blocks = Blocks().within(length, length)
  pad = ((0, 0), (0, -length % blocks.q))
  holds = what_blocks_hold(
    np.pad(order, pad, mode='edge'),
    np.pad(visible_from, pad),
    np.pad(visible_to, pad),
    block_q=blocks.q,
    block_k=blocks.k,
  )
  return float((holds != NOTHING).mean())
