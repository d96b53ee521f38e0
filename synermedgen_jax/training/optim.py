"""Optimisers and per-parameter learning rates.

The rate of a parameter is the schedule of `config.learning_rate`, times the
multiplier of the first row of `config.trainable` that matches its name; the
rows are in `configs/*.py`.

Parameters are flat: {'mot/layers/und/q_proj/kernel': array, ...}.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Iterable, Mapping, Sequence

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from synermedgen_jax.core.trees import Flat


def multipliers(
  names: Iterable[str], table: Sequence[tuple[str, float]]
) -> dict[str, float]:
  """Learning-rate multiplier per parameter; 0 = frozen.

  Args:
    names: parameter names.
    table: (regular expression, multiplier); the first full match decides.

  Raises:
    ValueError: naming the parameters that no expression matches, or the
      expressions that match nothing.
  """
  out, unmatched, used = {}, [], set()
  for name in names:
    for pattern, value in table:
      if re.fullmatch(pattern, name):
        out[name] = float(value)
        used.add(pattern)
        break
    else:
      unmatched.append(name)
  if unmatched:
    raise ValueError(
      f'config.trainable has no row for {", ".join(unmatched)}: add one.'
    )
  unused = [pattern for pattern, _ in table if pattern not in used]
  if unused:
    raise ValueError(
      f'config.trainable has rows that match nothing: {", ".join(unused)}.'
    )
  return out


def gradient_norms(grads: Flat) -> dict[str, jax.Array]:
  """Global norm as 'grad_norm', and 'grad_norm/PART' per part of the model."""
  parts = collections.defaultdict(dict)
  for name, grad in grads.items():
    parts[part_of(name)][name] = grad
  norms = {f'grad_norm/{p}': optax.tree.norm(g) for p, g in parts.items()}
  return {'grad_norm': optax.tree.norm(norms), **norms}


def part_of(name: str) -> str:
  """The part of the model that a parameter is in: 'vit', 'und', 'gen', ..."""
  first, *rest = name.split('/')
  if first != 'mot':
    return first
  return 'gen' if 'gen' in '/'.join(rest[:2]) else 'und'


def schedule(
  learning_rate: float, warmup: int, steps: int, decay: str
) -> optax.Schedule:
  """Linear warm-up, then a decay by name.

  `cosine` ends at zero. `linear` is constant for the first half of the steps
  and then goes down to zero, as in pix2pix and CycleGAN. `poly` is nnU-Net's
  (1 - step / steps)^0.9, without a warm-up.
  """
  if decay == 'constant':
    return optax.join_schedules(
      [
        optax.linear_schedule(0.0, learning_rate, max(warmup, 1)),
        optax.constant_schedule(learning_rate),
      ],
      [warmup],
    )
  if decay == 'cosine':
    return optax.warmup_cosine_decay_schedule(
      0.0, learning_rate, warmup, max(steps, warmup + 1)
    )
  if decay == 'linear':
    return optax.join_schedules(
      [
        optax.linear_schedule(0.0, learning_rate, max(warmup, 1)),
        optax.constant_schedule(learning_rate),
        optax.linear_schedule(learning_rate, 0.0, max(steps - steps // 2, 1)),
      ],
      [warmup, max(steps // 2, warmup)],
    )
  if decay == 'poly':
    return optax.polynomial_schedule(learning_rate, 0.0, 0.9, max(steps, 1))
  raise ValueError(
    f'Unknown config.decay {decay!r}: expected constant, cosine, linear or '
    'poly.'
  )


def optimizer(
  rate: optax.Schedule,
  scales: Mapping[str, float],
  *,
  name: str = 'adamw',
  b1: float,
  b2: float,
  eps: float,
  weight_decay: float,
  clip: float,
) -> optax.GradientTransformation:
  """A global clip, AdamW, Muon or SGD, and a multiplier per parameter.

  Args:
    rate: learning rate by step.
    scales: learning-rate multiplier per parameter; 0 = frozen.
    name: 'adamw', which BAGEL is trained with; or 'muon', which
      orthogonalises the updates of matrices and convolutions (their RMS
      matched to AdamW's, arXiv 2502.16982) and leaves the rest to AdamW; or
      'sgd', with Nesterov's momentum `b1`.
    b1, b2, eps: constants of AdamW.
    weight_decay: applied to matrices only; with Muon, to its matrices; with
      SGD, added to the gradient of all parameters, as in PyTorch.
    clip: largest global gradient norm.

  Raises:
    ValueError: `name` is another optimiser.
  """
  if name == 'adamw':
    core = optax.adamw(
      rate,
      b1=b1,
      b2=b2,
      eps=eps,
      mu_dtype=jnp.float32,
      weight_decay=weight_decay,
      mask=lambda params: {n: _axes(n, x) > 1 for n, x in params.items()},
    )
  elif name == 'muon':
    core = optax.contrib.muon(
      rate,
      weight_decay=weight_decay,
      adam_b1=b1,
      adam_b2=b2,
      eps=eps,
      muon_weight_dimension_numbers=lambda params: (
        jax.tree_util.tree_map_with_path(
          lambda path, x: _muon_axes(path[-1].key, x.ndim), params
        )
      ),
      consistent_rms=0.2,
    )
  elif name == 'sgd':
    core = optax.chain(
      optax.add_decayed_weights(weight_decay),
      optax.sgd(rate, momentum=b1, nesterov=True),
    )
  else:
    raise ValueError(
      f'Unknown config.optimizer {name!r}: expected adamw, muon or sgd.'
    )

  def scale(updates):
    return {name: update * scales[name] for name, update in updates.items()}

  return optax.chain(
    optax.clip_by_global_norm(clip),
    core,
    optax.stateless(lambda updates, _: scale(updates)),
  )


def _axes(name: str, x: jax.Array) -> int:
  """Number of axes in one layer: without the axis of stacked layers."""
  return x.ndim - ('layers' in name.split('/'))


def _muon_axes(
  name: str, axes: int
) -> optax.contrib.MuonDimensionNumbers | None:
  """Input and output axes of a matrix or a convolution; None = use AdamW.

  A leading axis of a matrix is layers; convolutions have four axes. The head's
  matrix is excluded: its columns are tokens.
  """
  if not name.endswith('/kernel') or name.startswith('lm_head'):
    return None
  inputs = (-4, -3, -2) if axes == 4 else -2
  return optax.contrib.MuonDimensionNumbers(inputs, -1)
