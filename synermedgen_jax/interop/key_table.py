"""The table of BAGEL's checkpoint keys and our parameters.

Every key of `ema.safetensors` and `ae.safetensors` is the `source` of one row,
every parameter of `models/bagel.py` the `ours` of one row. The tensors of a
source with `{layer}` are stacked along the leading axis of the parameter.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from synermedgen_jax.core.lazy_array import Index, LazyArray, block_shape
from synermedgen_jax.models.autoencoder import AutoencoderConfig
from synermedgen_jax.models.bagel_config import BagelConfig


@dataclasses.dataclass(frozen=True)
class Entry:
  """One row: a source key, our parameter, and the conversion between them.

  Attributes:
    source: key in the safetensors file; `{layer}` stands for the layer index.
    ours: name of our parameter, 'a/b/c'.
    layout: 'same', 'dense' (out, in -> in, out) or 'conv' (out, in, h, w ->
      h, w, in, out).
    layers: number of stacked layers; 0 = the key has no `{layer}`.
  """

  source: str
  ours: str
  layout: str = 'same'
  layers: int = 0

  @property
  def keys(self) -> tuple[str, ...]:
    """Source keys of this row, in order of layers."""
    if not self.layers:
      return (self.source,)
    return tuple(self.source.format(layer=i) for i in range(self.layers))

  def source_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of each tensor of `keys`, given the shape of our parameter."""
    ours = shape[1:] if self.layers else shape
    return tuple(ours[i] for i in np.argsort(_TO_OURS[self.layout](len(ours))))

  def to_ours(
    self, tensors: Sequence[LazyArray], dtype: np.dtype | None = None
  ) -> LazyArray:
    """Converts the tensors of `keys` to our parameter.

    Args:
      tensors: one tensor per key.
      dtype: dtype of the parameter; None = the tensors' common dtype.
    """
    order = _TO_OURS[self.layout](len(tensors[0].shape))
    dtype = dtype or np.result_type(*(t.dtype for t in tensors))

    def read_layer(tensor: LazyArray, index: Index) -> np.ndarray:
      turned = tuple(index[i] for i in np.argsort(order))
      return tensor.read(turned).transpose(order).astype(dtype, copy=False)

    shape = tuple(tensors[0].shape[i] for i in order)
    rows = order.index(0)
    if not self.layers:
      block = block_shape(shape, dtype, [rows])
      return LazyArray(
        shape, dtype, block, lambda index: read_layer(tensors[0], index)
      )

    def read(index: Index) -> np.ndarray:
      layers = tensors[index[0]]
      return np.stack([read_layer(tensor, index[1:]) for tensor in layers])

    shape = (self.layers, *shape)
    return LazyArray(
      shape, dtype, block_shape(shape, dtype, [0, rows + 1]), read
    )

  def to_source(
    self, array: LazyArray, dtype: np.dtype | None = None
  ) -> list[LazyArray]:
    """Converts our parameter to the tensors of `keys`.

    Args:
      array: the parameter.
      dtype: dtype of the tensors; None = that of the parameter.
    """
    dtype = dtype or array.dtype
    ours = array.shape[1:] if self.layers else array.shape
    order = _TO_OURS[self.layout](len(ours))
    back = np.argsort(order)

    def read(index: Index, layer: int) -> np.ndarray:
      turned = tuple(index[i] for i in order)
      if not self.layers:
        part = array.read(turned)
      else:
        part = array.read((slice(layer, layer + 1), *turned))[0]
      return part.transpose(back).astype(dtype, copy=False)

    shape = self.source_shape(array.shape)
    block = block_shape(shape, dtype, [0])
    return [
      LazyArray(shape, dtype, block, functools.partial(read, layer=layer))
      for layer in range(len(self.keys))
    ]


_TO_OURS: Mapping[str, Callable[[int], tuple[int, ...]]] = {
  'same': lambda n: tuple(range(n)),
  'dense': lambda _: (1, 0),
  'conv': lambda _: (2, 3, 1, 0),
}


def _dense(source: str, ours: str, layers: int = 0, *, bias: bool = True):
  rows = [Entry(f'{source}.weight', f'{ours}/kernel', 'dense', layers)]
  if bias:
    rows.append(Entry(f'{source}.bias', f'{ours}/bias', 'same', layers))
  return rows


def _norm(source: str, ours: str, layers: int = 0, *, bias: bool = False):
  rows = [Entry(f'{source}.weight', f'{ours}/scale', 'same', layers)]
  if bias:
    rows.append(Entry(f'{source}.bias', f'{ours}/bias', 'same', layers))
  return rows


def _conv(source: str, ours: str):
  return [
    Entry(f'{source}.weight', f'{ours}/kernel', 'conv'),
    Entry(f'{source}.bias', f'{ours}/bias'),
  ]


def _expert_rows(config: BagelConfig, expert: str) -> list[Entry]:
  n = config.llm.layers
  layer = 'language_model.model.layers.{layer}'
  suffix = '_moe_gen' if expert == 'gen' else ''
  ours = f'mot/layers/{expert}'
  rows = []
  for name in ('q_proj', 'k_proj', 'v_proj'):
    rows += _dense(f'{layer}.self_attn.{name}{suffix}', f'{ours}/{name}', n)
  rows += _dense(
    f'{layer}.self_attn.o_proj{suffix}', f'{ours}/o_proj', n, bias=False
  )
  if config.llm.qk_norm:
    for name in ('q_norm', 'k_norm'):
      rows += _norm(f'{layer}.self_attn.{name}{suffix}', f'{ours}/{name}', n)
  for name in ('gate_proj', 'up_proj', 'down_proj'):
    rows += _dense(
      f'{layer}.mlp{suffix}.{name}', f'{ours}/mlp/{name}', n, bias=False
    )
  rows += _norm(f'{layer}.input_layernorm{suffix}', f'{ours}/input_norm', n)
  rows += _norm(
    f'{layer}.post_attention_layernorm{suffix}', f'{ours}/post_norm', n
  )
  rows += _norm(f'language_model.model.norm{suffix}', f'mot/{expert}_norm')
  return rows


def _vit_rows(config: BagelConfig) -> list[Entry]:
  vision, n = 'vit_model.vision_model', config.vit.layers
  rows = _dense(f'{vision}.embeddings.patch_embedding', 'vit/patch_embedding')
  rows.append(
    Entry(
      f'{vision}.embeddings.position_embedding.weight',
      'vit/position_embedding',
    )
  )
  layer = f'{vision}.encoder.layers.{{layer}}'
  for name in ('q_proj', 'k_proj', 'v_proj', 'out_proj'):
    rows += _dense(f'{layer}.self_attn.{name}', f'vit/layers/{name}', n)
  for name in ('fc1', 'fc2'):
    rows += _dense(f'{layer}.mlp.{name}', f'vit/layers/{name}', n)
  for i in (1, 2):
    rows += _norm(f'{layer}.layer_norm{i}', f'vit/layers/norm{i}', n, bias=True)
  rows += _norm(f'{vision}.post_layernorm', 'vit/post_norm', bias=True)
  return rows


def bagel_table(config: BagelConfig) -> list[Entry]:
  """The rows of `ema.safetensors`."""
  return [
    Entry('language_model.model.embed_tokens.weight', 'embed_tokens/embedding'),
    *_dense('language_model.lm_head', 'lm_head', bias=False),
    *_expert_rows(config, 'und'),
    *_expert_rows(config, 'gen'),
    *_vit_rows(config),
    *_dense('connector.fc1', 'connector/fc1'),
    *_dense('connector.fc2', 'connector/fc2'),
    *_dense('time_embedder.mlp.0', 'time_embedder/fc1'),
    *_dense('time_embedder.mlp.2', 'time_embedder/fc2'),
    *_dense('vae2llm', 'vae2llm'),
    *_dense('llm2vae', 'llm2vae'),
    Entry('vit_pos_embed.pos_embed', 'vit_pos_embed'),
    Entry('latent_pos_embed.pos_embed', 'latent_pos_embed'),
  ]


def _block_rows(source: str, ours: str, *, shortcut: bool) -> list[Entry]:
  rows = []
  for i in (1, 2):
    rows += _norm(f'{source}.norm{i}', f'{ours}/norm{i}', bias=True)
    rows += _conv(f'{source}.conv{i}', f'{ours}/conv{i}')
  if shortcut:
    rows += _conv(f'{source}.nin_shortcut', f'{ours}/nin_shortcut')
  return rows


def _coder_rows(config: AutoencoderConfig, side: str) -> list[Entry]:
  ours = f'autoencoder/{side}'
  rows = _conv(f'{side}.conv_in', f'{ours}/conv_in')
  for block in ('block_1', 'block_2'):
    rows += _block_rows(
      f'{side}.mid.{block}', f'{ours}/mid/{block}', shortcut=False
    )
  rows += _norm(f'{side}.mid.attn_1.norm', f'{ours}/mid/attn_1/norm', bias=True)
  for name in ('q', 'k', 'v', 'proj_out'):
    rows += _conv(f'{side}.mid.attn_1.{name}', f'{ours}/mid/attn_1/{name}')
  rows += _norm(f'{side}.norm_out', f'{ours}/norm_out', bias=True)
  rows += _conv(f'{side}.conv_out', f'{ours}/conv_out')
  levels = list(enumerate(config.ch_mult))
  down = side == 'encoder'
  way, resample = ('down', 'downsample') if down else ('up', 'upsample')
  width = config.ch_mult[0] if down else config.ch_mult[-1]
  if down:
    width = 1  # conv_in has `ch` channels, whatever the first multiplier
  for level, mult in levels if down else reversed(levels):
    for block in range(config.num_res_blocks + (not down)):
      rows += _block_rows(
        f'{side}.{way}.{level}.block.{block}',
        f'{ours}/{way}_{level}_block_{block}',
        shortcut=width != mult,
      )
      width = mult
    last = len(levels) - 1 if down else 0
    if level != last:
      rows += _conv(
        f'{side}.{way}.{level}.{resample}.conv',
        f'{ours}/{way}_{level}_{resample}',
      )
  return rows


def autoencoder_table(config: BagelConfig) -> list[Entry]:
  """The rows of `ae.safetensors`."""
  return [
    *_coder_rows(config.autoencoder, 'encoder'),
    *_coder_rows(config.autoencoder, 'decoder'),
  ]
