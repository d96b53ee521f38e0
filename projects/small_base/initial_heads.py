"""Initial weights with which a small model can locate and compare.

BAGEL is pretrained before it sees medical questions. A model of a few million
parameters learns by itself neither to attend to the same position of a source
image nor to match an image among candidates (README.md). So some attention
heads start with weights that do this. Training changes them like any other
parameters.

Heads of the `gen` expert that attend by position (every layer):

  * the first head of each key group projects to the directions in which
    positions of the latent table differ.

Heads of the `und` expert that compare, four kinds, none of which lowers the
loss without the others:

  * layer 0, first key group: a token reads the image just before it, as the
    letter of an option reads its candidate;
  * layer 0, second key group: a token reads the image 27 positions before it,
    as the answer reads the source. Each of these two groups writes what it
    reads into a subspace of its own;
  * later layers, first head of the first group: queries from the second
    subspace match keys from the first;
  * the same head copies the token that it attends to into the residual stream.
    The output layer starts as the transposed embedding, which reads it.

All other heads start small, because their random output would drown the
comparison.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Float

from synermedgen_jax.core.trees import flatten, unflatten
from synermedgen_jax.models.bagel import init_params
from synermedgen_jax.models.bagel_config import BagelConfig
from synermedgen_jax.models.layers import sincos_table
from synermedgen_jax.models.mot import MoTConfig

Weights = dict[str, np.ndarray]  # by name, 'a/b/c'

_UND, _GEN = 'mot/layers/und', 'mot/layers/gen'
_NEAR, _FAR = 2.0, 27.0  # RoPE positions back
# Frequencies, in radians per position, that separate such distances.
_NEAR_BAND, _FAR_BAND = (0.15, np.inf), (0.04, 0.25)
_SINK = 1.2  # score of text, which a token reads if no image is at the distance
_EMBEDDING = 25.0  # factor: text should stand out beside image values
_QUIET = 0.5  # factor of the output of all other heads
_READOUT = 0.1  # ratio of the output layer to the transposed embedding
_SHARPNESS = 4.0  # scale of the query norm


@dataclasses.dataclass(frozen=True)
class Start:
  """How initial weights differ from `init_params`.

  Attributes:
    position_base: base of the sin-cos position tables. At BAGEL's 10000 a
      narrow model has few frequencies that vary over a table of 8 x 8.
    latent_position_scale: factor of the latent position table; above 1,
      positions stand out from the contents of the tokens.
    latent_query_scale: scale of the query norm of the `gen` expert; above 1,
      its attention is sharper.
    comparison: add the heads of the `und` expert that compare.
  """

  position_base: float = 2.0
  latent_position_scale: float = 3.0
  latent_query_scale: float = 2.0
  comparison: bool = False


STARTS = {'tiny': Start(), 'small': Start(comparison=True)}


def initial_weights(model: BagelConfig, start: Start, *, seed: int = 0):
  """Initial weights of a run.

  Args:
    model: shape.
    start: differences from `init_params`.
    seed: random seed of all other weights.

  Returns:
    Nested float32 parameters, NumPy arrays.
  """
  init = jax.jit(functools.partial(init_params, model))
  params = flatten(nn.unbox(init(jax.random.key(seed))))
  fresh = {name: np.asarray(value) for name, value in params.items()}
  return unflatten(with_heads(fresh, model, start))


def with_heads(
  params: Mapping[str, np.ndarray], model: BagelConfig, start: Start
) -> Weights:
  """Parameters with initial heads and position tables.

  Args:
    params: new float32 parameters by name, 'a/b/c'; not changed.
    model: shape.
    start: the changes.

  Raises:
    ValueError: the comparing heads do not fit into the shape.
  """
  llm = model.llm
  fits = llm.kv_heads >= 2 and llm.hidden >= 3 * llm.head_dim and llm.qk_norm
  if start.comparison and not fits:
    raise ValueError(
      'Comparing heads need two key heads, each at most a third of the width, '
      'and normalised queries.'
    )
  weights = {name: np.array(value) for name, value in params.items()}
  tables = _tables(model, start)
  weights.update(tables)
  _locate(weights, model, start)
  if model.llm.qk_norm:
    weights[f'{_GEN}/q_norm/scale'] *= start.latent_query_scale
  if start.comparison:
    _compare(weights, model, tables['vit_pos_embed'])
  return weights


def _tables(model: BagelConfig, start: Start) -> Weights:
  """The position tables, (side * side, width)."""

  def table(side: int) -> np.ndarray:
    return sincos_table(side, model.llm.hidden, start.position_base)

  return {
    'vit_pos_embed': table(model.vit_table),
    'latent_pos_embed': start.latent_position_scale * table(model.latent_table),
  }


def _locate(weights: Weights, model: BagelConfig, start: Start) -> None:
  """Queries and keys of `gen` that depend on the position alone."""
  kernel = _position_kernel(model, start)
  width = model.llm.head_dim
  group = model.llm.heads // model.llm.kv_heads
  for name, stride in (('q_proj', group * width), ('k_proj', width)):
    value = weights[f'{_GEN}/{name}/kernel']
    for first in range(0, value.shape[-1], stride):
      value[:, :, first : first + width] = kernel


def _position_kernel(
  model: BagelConfig, start: Start
) -> Float[np.ndarray, 'e d']:
  """A projection to the directions in which positions differ most.

  Its columns are the principal directions of the table, weighted to estimate
  the position among contents of unit variance. They use the dimensions that
  RoPE rotates least, since source and target differ in RoPE position.
  """
  llm = model.llm
  table = sincos_table(model.latent_table, llm.hidden, start.position_base)
  # Rows and columns have equal singular values, so the directions depend on
  # rounding: another order of these operations gives another initialisation.
  table = start.latent_position_scale * (table - table.mean(axis=0))
  _, size, directions = np.linalg.svd(table, full_matrices=False)
  size = size / np.sqrt(len(table))
  half = llm.head_dim // 2
  slow = np.arange(half // 3, half)
  dims = np.concatenate([slow, half + slow])[: len(size)]
  weighted = directions * (size / (size**2 + 1))[:, None]
  kernel = np.zeros((llm.hidden, llm.head_dim), np.float32)
  kernel[:, dims] = weighted[: len(dims)].T
  return kernel


def _compare(
  weights: Weights, model: BagelConfig, table: Float[np.ndarray, 'p e']
) -> None:
  llm = model.llm
  rng = np.random.default_rng(0)
  basis = np.linalg.qr(rng.normal(size=(llm.hidden, 3 * llm.head_dim)))[0]
  basis = basis.astype(np.float32)
  contents, near, far = np.split(basis, 3, axis=1)
  weights[f'{_UND}/o_proj/kernel'] *= np.float32(_QUIET)
  _read_images(weights, llm, table, contents, (near, far))
  _match(weights, llm, (near, far), rng)
  _copy(weights, llm, rng)
  weights[f'{_UND}/q_norm/scale'] *= _SHARPNESS
  weights['embed_tokens/embedding'] *= _EMBEDDING
  weights['lm_head/kernel'] = _READOUT * weights['embed_tokens/embedding'].T
  # Black pixels are -1: with this bias a black patch adds nothing.
  patches = 'vit/patch_embedding'
  weights[f'{patches}/bias'] = weights[f'{patches}/kernel'].sum(axis=0)


def _slots(llm: MoTConfig, group: int) -> tuple[slice, list[slice]]:
  """Columns of a key head, and of each of its query heads."""
  d, heads = llm.head_dim, llm.heads // llm.kv_heads
  first = group * heads
  queries = [slice((first + i) * d, (first + i + 1) * d) for i in range(heads)]
  return slice(group * d, (group + 1) * d), queries


def _read_images(
  weights: Weights,
  llm: MoTConfig,
  table: Float[np.ndarray, 'p e'],
  contents: Float[np.ndarray, 'e d'],
  written: tuple[Float[np.ndarray, 'e d'], Float[np.ndarray, 'e d']],
) -> None:
  """Layer 0: keys recognise image tokens by the mean of their positions."""
  q, k, v, o = (f'{_UND}/{name}_proj' for name in 'qkvo')
  half = llm.head_dim // 2
  frequency = llm.rope_theta ** (-np.arange(half) / half)
  image = table.mean(axis=0)
  image /= np.linalg.norm(image)
  contents = contents - np.outer(image, image @ contents)
  readers = ((_NEAR, _NEAR_BAND), (_FAR, _FAR_BAND))
  for group, (offset, (low, high)) in enumerate(readers):
    dims = np.flatnonzero((frequency > low) & (frequency < high))
    slot, queries = _slots(llm, group)
    key = np.zeros((llm.hidden, llm.head_dim), np.float32)
    key[:, dims] = image[:, None] / np.sqrt(len(dims))
    weights[f'{k}/kernel'][0, :, slot] = key
    # The slowest dimension hardly rotates: all tokens score `_SINK` in it.
    sink = 4 * np.eye(llm.head_dim, dtype=np.float32)[half - 1]
    weights[f'{k}/bias'][0, slot] = sink
    weights[f'{v}/kernel'][0, :, slot] = contents
    looks = np.zeros(llm.head_dim, np.float32)
    looks[dims] = np.cos(frequency[dims] * offset)
    looks[half + dims] = -np.sin(frequency[dims] * offset)
    looks[half - 1] = _SINK
    for query in queries:
      weights[f'{q}/kernel'][0, :, query] *= np.float32(0.1)
      weights[f'{q}/bias'][0, query] = 10 * looks
      out = written[group].T * 2 / len(queries)
      weights[f'{o}/kernel'][0, query] = out


def _match(weights: Weights, llm: MoTConfig, written, rng) -> None:
  """Later layers: a source matches its candidate, in slow RoPE dimensions.

  Keys of the other groups stay random, for text.
  """
  half = llm.head_dim // 2
  slow = np.zeros(llm.head_dim, np.float32)
  slow[half // 3 : half] = slow[half + half // 3 :] = 3
  slot, queries = _slots(llm, 0)
  order = rng.permutation(llm.head_dim)
  near, far = (part[:, order] * slow for part in written)
  weights[f'{_UND}/k_proj/kernel'][1:, :, slot] = near
  weights[f'{_UND}/q_proj/kernel'][1:, :, queries[0]] = far


def _copy(weights: Weights, llm: MoTConfig, rng) -> None:
  """Later layers: the matching head adds the token that it attends to."""
  slot, queries = _slots(llm, 0)
  for layer in range(1, llm.layers):
    shape = (llm.hidden, llm.head_dim)
    part = np.linalg.qr(rng.normal(size=shape))[0].astype(np.float32)
    weights[f'{_UND}/v_proj/kernel'][layer, :, slot] = part
    weights[f'{_UND}/o_proj/kernel'][layer, queries[0]] = part.T
