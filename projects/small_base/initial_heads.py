"""How attention heads of a small model start: able to find and to compare.

BAGEL is pretrained before it sees our questions. A model of a few million
parameters finds neither its place in a source image nor the like of an image
among candidates by itself, or not in time (docs/design.md, section 8;
docs/base.md), so these begin as ordinary weights that training may change.

`position_heads` of the `gen` expert read the position alone.

`comparison_heads` of the `und` expert are four kinds of attention, none of
which lowers the loss before the others are there:

  * first layer, heads of the first key group: a token reads the image just
    before it (a candidate's letter: its candidate);
  * first layer, heads of the second group: a token reads the image some 27
    positions before it, the source as seen from the answer of such a question;
    both write what they read into directions of their own;
  * later layers, the first head of the first group: queries made of the latter
    look for keys made of the former, alike for alike;
  * and it copies the words of the place it finds into the answer, which the
    output layer, starting as the transpose of the embedding, can read.

All other heads are left to words, and start quietly: what they add at random
would drown the comparison.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Float

from synermedgen_jax.models.layers import sincos_table

if TYPE_CHECKING:
  from synermedgen_jax.models.bagel import BagelConfig

_NEAR, _FAR = 2.0, 27.0  # RoPE positions back
# Frequencies, in radians a position, that tell such distances apart.
_NEAR_BAND, _FAR_BAND = (0.15, np.inf), (0.04, 0.25)
_SINK = 1.2  # what a token without such an image looks at instead: words
_EMBEDDING = 25.0  # words stand out beside what is read from images
_QUIET = 0.5  # of what all other heads add
_READOUT = 0.1  # of the output layer beside the embedding
_SHARPNESS = 4.0  # of all queries


def start_heads(params: dict[str, Any], config: BagelConfig) -> None:
  """Changes fresh parameters, logical names boxed in, as the config says."""
  if config.position_heads:
    _start_positions(params['mot']['layers']['gen'], config)
  if config.llm.qk_norm:
    norm = params['mot']['layers']['gen']['q_norm']
    _scale(norm, 'scale', config.latent_query_scale)
  if config.comparison_heads:
    _start_comparison(params, config)


def _start_positions(gen, config: BagelConfig) -> None:
  kernel = _position_kernel(config)
  width = config.llm.head_dim
  group = config.llm.heads // config.llm.kv_heads
  for name, stride in (('q_proj', group * width), ('k_proj', width)):
    whole = gen[name]['kernel']
    value = whole.value
    for start in range(0, value.shape[-1], stride):
      value = value.at[:, :, start : start + width].set(kernel)
    gen[name]['kernel'] = whole.replace_boxed(value)


def _position_kernel(config: BagelConfig) -> Float[np.ndarray, 'e d']:
  """A projection in which positions of the latent table differ most.

  Its columns are the table's principal directions, weighted so as to estimate
  the position among contents of unit variance. They lie in the dimensions
  that RoPE turns least: a source and its target differ in RoPE position.
  """
  table = sincos_table(
    config.latent_table, config.llm.hidden, config.position_base
  )
  table = config.latent_position_scale * (table - table.mean(axis=0))
  _, size, directions = np.linalg.svd(table, full_matrices=False)
  size = size / np.sqrt(len(table))
  half = config.llm.head_dim // 2
  slow = np.arange(half // 3, half)
  places = np.concatenate([slow, half + slow])[: len(size)]
  weighted = directions * (size / (size**2 + 1))[:, None]
  kernel = np.zeros((config.llm.hidden, config.llm.head_dim), np.float32)
  kernel[:, places] = weighted[: len(places)].T
  return kernel


def _start_comparison(params, config: BagelConfig) -> None:
  llm = config.llm
  if llm.kv_heads < 2 or llm.hidden < 3 * llm.head_dim or not llm.qk_norm:
    raise ValueError(
      'comparison_heads need two key heads of a third of the width and '
      'normalised queries.'
    )
  und = params['mot']['layers']['und']
  rng = np.random.default_rng(0)
  basis = np.linalg.qr(rng.normal(size=(llm.hidden, 3 * llm.head_dim)))[0]
  basis = basis.astype(np.float32)
  contents, near, far = np.split(basis, 3, axis=1)
  weights = {
    f'{name}/{part}': und[name][part].value
    for name in ('q_proj', 'k_proj', 'v_proj', 'o_proj')
    for part in und[name]
  }
  weights['o_proj/kernel'] *= _QUIET
  _read_images(weights, config, contents, (near, far))
  _match(weights, config, (near, far), rng)
  _copy(weights, config, rng)
  for name, value in weights.items():
    module, part = name.split('/')
    und[module][part] = und[module][part].replace_boxed(value)
  _scale(und['q_norm'], 'scale', _SHARPNESS)
  _scale(params['embed_tokens'], 'embedding', _EMBEDDING)
  embedding = params['embed_tokens']['embedding'].value
  head = params['lm_head']['kernel']
  params['lm_head']['kernel'] = head.replace_boxed(_READOUT * embedding.T)
  # Black pixels are -1: what is black says nothing.
  patches = params['vit']['patch_embedding']
  patches['bias'] = patches['bias'].replace_boxed(
    patches['kernel'].value.sum(axis=0)
  )


def _put(weights: dict[str, jax.Array], name: str, place, value) -> None:
  weights[name] = weights[name].at[place].set(value)


def _scale(module, name: str, factor: float) -> None:
  module[name] = module[name].replace_boxed(module[name].value * factor)


def _frequencies(llm) -> Float[np.ndarray, ' half']:
  half = llm.head_dim // 2
  return llm.rope_theta ** (-np.arange(half) / half)


def _slots(llm, group: int) -> tuple[slice, list[slice]]:
  """Where a key head lies, and its query heads."""
  d, heads = llm.head_dim, llm.heads // llm.kv_heads
  first = group * heads
  queries = [slice((first + i) * d, (first + i + 1) * d) for i in range(heads)]
  return slice(group * d, (group + 1) * d), queries


def _read_images(weights, config: BagelConfig, contents, written) -> None:
  """The first layer: image tokens are keys, told by their position's mean."""
  llm = config.llm
  half = llm.head_dim // 2
  frequency = _frequencies(llm)
  table = sincos_table(config.vit_table, llm.hidden, config.position_base)
  image = table.mean(axis=0)
  image /= np.linalg.norm(image)
  contents = contents - np.outer(image, image @ contents)
  readers = ((_NEAR, _NEAR_BAND), (_FAR, _FAR_BAND))
  for group, (offset, (low, high)) in enumerate(readers):
    dims = np.flatnonzero((frequency > low) & (frequency < high))
    place, queries = _slots(llm, group)
    key = np.zeros((llm.hidden, llm.head_dim), np.float32)
    key[:, dims] = image[:, None] / np.sqrt(len(dims))
    _put(weights, 'k_proj/kernel', np.s_[0, :, place], key)
    # The slowest dimension, which hardly turns: all tokens, words above all.
    bias = 4 * np.eye(llm.head_dim, dtype=np.float32)[half - 1]
    _put(weights, 'k_proj/bias', np.s_[0, place], bias)
    _put(weights, 'v_proj/kernel', np.s_[0, :, place], contents)
    looks = np.zeros(llm.head_dim, np.float32)
    looks[dims] = np.cos(frequency[dims] * offset)
    looks[half + dims] = -np.sin(frequency[dims] * offset)
    looks[half - 1] = _SINK
    for query in queries:
      kernel = weights['q_proj/kernel'][0, :, query]
      _put(weights, 'q_proj/kernel', np.s_[0, :, query], 0.1 * kernel)
      _put(weights, 'q_proj/bias', np.s_[0, query], 10 * looks)
      out = written[group].T * 2 / len(queries)
      _put(weights, 'o_proj/kernel', np.s_[0, query], out)


def _match(weights, config: BagelConfig, written, rng) -> None:
  """Later layers: a source seeks its like, in dimensions that turn slowly.

  The other groups' keys stay as they are: words seek words with them.
  """
  llm = config.llm
  half = llm.head_dim // 2
  slow = np.zeros(llm.head_dim, np.float32)
  slow[half // 3 : half] = slow[half + half // 3 :] = 3
  place, queries = _slots(llm, 0)
  order = rng.permutation(llm.head_dim)
  near, far = (part[:, order] * slow for part in written)
  _put(weights, 'k_proj/kernel', np.s_[1:, :, place], near)
  _put(weights, 'q_proj/kernel', np.s_[1:, :, queries[0]], far)


def _copy(weights, config: BagelConfig, rng) -> None:
  """Later layers: what such a head finds is added as it is."""
  llm = config.llm
  place, queries = _slots(llm, 0)
  for layer in range(1, llm.layers):
    shape = (llm.hidden, llm.head_dim)
    part = np.linalg.qr(rng.normal(size=shape))[0].astype(np.float32)
    _put(weights, 'v_proj/kernel', np.s_[layer, :, place], part)
    _put(weights, 'o_proj/kernel', np.s_[layer, queries[0]], part.T)
