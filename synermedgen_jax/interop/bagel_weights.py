"""BAGEL's checkpoint keys against our parameters, as one table.

Every key of `ema.safetensors` and `ae.safetensors` stands once on the left,
every parameter of `models/bagel.py` once on the right. A `{layer}` on the left
is stacked along the leading axis on the right. `bagel_config` reads the model's
shape from the JSON files beside the weights, `load_params` the weights.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax import traverse_util
from safetensors.numpy import load_file

from synermedgen_jax.models.autoencoder import AutoencoderConfig
from synermedgen_jax.models.bagel import BagelConfig, init_params
from synermedgen_jax.models.mot import MoTConfig
from synermedgen_jax.models.presets import bagel_7b
from synermedgen_jax.models.vit import ViTConfig


@dataclasses.dataclass(frozen=True)
class Entry:
  """One row: a source key, our parameter, and how the one becomes the other.

  Attributes:
    source: key in the safetensors file, `{layer}` where there is one a layer.
    ours: parameter name, 'a/b/c'.
    layout: 'same', 'dense' (out, in -> in, out) or 'conv' (out, in, h, w ->
      h, w, in, out).
    layers: how many layers are stacked; 0 = the key stands alone.
  """

  source: str
  ours: str
  layout: str = 'same'
  layers: int = 0

  @property
  def keys(self) -> tuple[str, ...]:
    """The source keys of this row, layer by layer."""
    if not self.layers:
      return (self.source,)
    return tuple(self.source.format(layer=i) for i in range(self.layers))

  def to_ours(self, arrays: list[np.ndarray]) -> np.ndarray:
    """Our parameter from the arrays of `keys`."""
    arrays = [a.transpose(_TO_OURS[self.layout](a.ndim)) for a in arrays]
    return np.stack(arrays) if self.layers else arrays[0]

  def to_source(self, array: np.ndarray) -> list[np.ndarray]:
    """The arrays of `keys` from our parameter."""
    arrays = list(array) if self.layers else [array]
    return [a.transpose(_TO_SOURCE[self.layout](a.ndim)) for a in arrays]


_TO_OURS: Mapping[str, Callable[[int], tuple[int, ...]]] = {
  'same': lambda n: tuple(range(n)),
  'dense': lambda _: (1, 0),
  'conv': lambda _: (2, 3, 1, 0),
}
_TO_SOURCE = {**_TO_OURS, 'conv': lambda _: (3, 2, 0, 1)}


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
    width = 1  # conv_in gives `ch` channels whatever the first multiplier
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


def bagel_config(
  directory: str | Path, *, dtype: str = 'bfloat16'
) -> BagelConfig:
  """The shape of the model in a directory of BAGEL's files.

  Args:
    directory: holds `llm_config.json`, `vit_config.json` and `config.json`;
      without an `ae_config.json` the autoencoder is FLUX's.
    dtype: compute dtype.

  Raises:
    FileNotFoundError: naming the file that is missing.
    ValueError: naming an option of the files that this model does not have.
  """
  llm, vit, whole = (
    json.loads((Path(directory) / f'{name}.json').read_text())
    for name in ('llm_config', 'vit_config', 'config')
  )
  _check(directory, 'llm_config', llm, hidden_act='silu')
  _check(directory, 'vit_config', vit, hidden_act='gelu_pytorch_tanh')
  _check(
    directory,
    'config',
    whole,
    connector_act='gelu_pytorch_tanh',
    interpolate_pos=False,
  )
  return BagelConfig(
    llm=MoTConfig(
      hidden=llm['hidden_size'],
      layers=llm['num_hidden_layers'],
      heads=llm['num_attention_heads'],
      kv_heads=llm['num_key_value_heads'],
      head_dim=llm['hidden_size'] // llm['num_attention_heads'],
      mlp=llm['intermediate_size'],
      vocab=llm['vocab_size'],
      norm_eps=llm['rms_norm_eps'],
      rope_theta=llm['rope_theta'],
      qk_norm=llm.get('qk_norm', True),
    ),
    vit=ViTConfig(
      hidden=vit['hidden_size'],
      layers=vit['num_hidden_layers'] - 1,  # BAGEL leaves the last one out
      heads=vit['num_attention_heads'],
      mlp=vit['intermediate_size'],
      patch=vit['patch_size'],
      channels=vit.get('num_channels', 3),
      table=vit['image_size'] // vit['patch_size'],
      norm_eps=vit.get('layer_norm_eps', 1e-6),
    ),
    autoencoder=_autoencoder_config(Path(directory) / 'ae_config.json'),
    latent_patch=whole.get('latent_patch_size', 2),
    latent_table=whole.get('max_latent_size', 64),
    vit_table=whole.get('vit_max_num_patch_per_side', 70),
    dtype=dtype,
  )


def _check(directory, file: str, values: Mapping[str, Any], **known) -> None:
  """Refuses options that leave no trace in the weights and are not ours."""
  for name, value in known.items():
    if values.get(name, value) != value:
      raise ValueError(
        f'{directory}/{file}.json: {name} = {values[name]!r} is not '
        f'supported, only {value!r}.'
      )


def _autoencoder_config(path: Path) -> AutoencoderConfig:
  if not path.is_file():
    return bagel_7b().autoencoder
  ae = json.loads(path.read_text())
  return AutoencoderConfig(
    channels=ae['in_channels'],
    ch=ae['ch'],
    ch_mult=tuple(ae['ch_mult']),
    num_res_blocks=ae['num_res_blocks'],
    z_channels=ae['z_channels'],
    scale_factor=ae['scale_factor'],
    shift_factor=ae['shift_factor'],
  )


def load_params(directory: str | Path, config: BagelConfig) -> dict[str, Any]:
  """The parameters in `ema.safetensors` and `ae.safetensors`, nested.

  Args:
    directory: BAGEL's files.
    config: as `bagel_config` reads it.

  Returns:
    NumPy arrays in the files' own dtypes.

  Raises:
    ValueError: naming keys that are missing or unknown, or a parameter whose
      shape is not the model's.
  """
  flat = {}
  for file, table in (
    ('ema.safetensors', bagel_table(config)),
    ('ae.safetensors', autoencoder_table(config)),
  ):
    source = load_file(Path(directory) / file)
    wrong = set(source) ^ {key for entry in table for key in entry.keys}
    if wrong:
      raise ValueError(
        f'{directory}/{file}: missing or unknown keys {sorted(wrong)}.'
      )
    for entry in table:
      flat[entry.ours] = entry.to_ours([source[key] for key in entry.keys])
  ae = config.autoencoder
  for name, value in (
    ('latent_scale', ae.scale_factor),
    ('latent_shift', ae.shift_factor),
  ):
    flat[f'autoencoder/{name}'] = np.full(ae.z_channels, value, np.float32)
  expected = nn.unbox(
    jax.eval_shape(lambda key: init_params(config, key), jax.random.key(0))
  )
  for name, leaf in traverse_util.flatten_dict(expected, sep='/').items():
    if flat[name].shape != leaf.shape:
      raise ValueError(
        f'{directory}: {name} has shape {flat[name].shape}, the JSON files '
        f'say {leaf.shape}.'
      )
  return traverse_util.unflatten_dict(flat, sep='/')
