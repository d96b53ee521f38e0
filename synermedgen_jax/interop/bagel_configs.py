"""Reads and writes the JSON files that give the shape of a BAGEL model."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from synermedgen_jax.core.errors import UserError
from synermedgen_jax.interop.layouts import BAGEL, Layout
from synermedgen_jax.models.autoencoder import AutoencoderConfig
from synermedgen_jax.models.bagel_config import BagelConfig
from synermedgen_jax.models.mot import MoTConfig
from synermedgen_jax.models.presets import bagel_7b
from synermedgen_jax.models.vit import ViTConfig

# Options that do not affect the shapes of weights -> the only supported value.
_LLM = {
  'hidden_act': 'silu',
  'rope_scaling': None,
  'use_sliding_window': False,
}
_VIT = {'hidden_act': 'gelu_pytorch_tanh', 'rope': False}
_MODEL = {
  'visual_gen': True,
  'visual_und': True,
  'connector_act': 'gelu_pytorch_tanh',
  'interpolate_pos': False,
}


class BagelError(UserError):
  """Files of a model that this project or BAGEL does not support; one line."""


def bagel_config(directory: str | Path, layout: Layout = BAGEL) -> BagelConfig:
  """Reads the shape of the model in a directory of BAGEL's files.

  Args:
    directory: holds `llm_config.json`, `vit_config.json` and, if the layout
      needs it, `config.json`. Without an `ae_config.json`, the autoencoder is
      that of FLUX.
    layout: its options replace those of the files.

  Raises:
    BagelError: a file or an option is missing, or an option is not supported or
      contradicts another one; the message names it.
  """
  directory = Path(directory)
  names = ['llm_config', 'vit_config']
  if layout.needs_config:
    names.append('config')
  if (directory / 'ae_config.json').is_file():
    names.append('ae_config')
  files = {name: _read_json(directory / f'{name}.json') for name in names}
  for name, options in layout.options.items():
    files[name] = files.get(name, {}) | options
  try:
    return _parse(files)
  except BagelError as error:
    raise BagelError(f'{directory}/{error}') from None
  except (TypeError, ZeroDivisionError) as error:  # a string or 0 as a size
    raise BagelError(
      f'{directory}: the JSON files have an invalid value: {error}.'
    ) from None


def _read_json(path: Path) -> dict[str, Any]:
  try:
    return dict(json.loads(path.read_text('utf-8')))
  except FileNotFoundError:
    raise BagelError(f'{path.parent}: has no {path.name}.') from None
  except (ValueError, TypeError):
    raise BagelError(f'{path}: is not a JSON object.') from None


class _Options(dict):
  """The options of one file; errors name the file and the option."""

  def __init__(self, name: str, values: Mapping[str, Any]):
    super().__init__(values)
    self._name = name

  def __missing__(self, key: str):
    raise BagelError(f'{self._name}.json: has no {key}.')

  def check(self, known: Mapping[str, Any], why: str = '') -> None:
    for name, value in known.items():
      if self.get(name, value) != value:
        raise BagelError(
          f'{self._name}.json: {name} = {self[name]!r} is not supported; only '
          f'{value!r} is{why}.'
        )


def _parse(files: Mapping[str, Mapping[str, Any]]) -> BagelConfig:
  llm, vit, model = (
    _Options(name, files[name])
    for name in ('llm_config', 'vit_config', 'config')
  )
  llm.check(_LLM)
  vit.check(_VIT)
  model.check(_MODEL)
  autoencoder = bagel_7b().autoencoder
  if 'ae_config' in files:
    autoencoder = _parse_autoencoder(_Options('ae_config', files['ae_config']))
  _Options('config', model.get('vae_config') or {}).check(
    {
      'downsample': autoencoder.downsample,
      'z_channels': autoencoder.z_channels,
    },
    ' with this autoencoder',
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
      layers=vit['num_hidden_layers'] - 1,  # BAGEL drops the last layer
      heads=vit['num_attention_heads'],
      mlp=vit['intermediate_size'],
      patch=vit['patch_size'],
      channels=vit.get('num_channels', 3),
      table=vit['image_size'] // vit['patch_size'],
      norm_eps=vit.get('layer_norm_eps', 1e-6),
    ),
    autoencoder=autoencoder,
    latent_patch=model.get('latent_patch_size', 2),
    latent_table=model.get('max_latent_size', 64),
    vit_table=model.get('vit_max_num_patch_per_side', 70),
  )


def _parse_autoencoder(ae: _Options) -> AutoencoderConfig:
  return AutoencoderConfig(
    channels=ae['in_channels'],
    ch=ae['ch'],
    ch_mult=tuple(ae['ch_mult']),
    num_res_blocks=ae['num_res_blocks'],
    z_channels=ae['z_channels'],
    scale_factor=ae['scale_factor'],
    shift_factor=ae['shift_factor'],
  )


def config_files(model: BagelConfig) -> dict[str, dict[str, Any]]:
  """The JSON files of a model, which `bagel_config` reads back exactly.

  Returns:
    File name without `.json` -> options.

  Raises:
    BagelError: BAGEL lacks a feature of the model; the message lists all.
  """
  llm, vit, ae = model.llm, model.vit, model.autoencoder
  downsample = 2 ** (len(ae.ch_mult) - 1)
  files = {
    'llm_config': {
      'hidden_size': llm.hidden,
      'num_hidden_layers': llm.layers,
      'num_attention_heads': llm.heads,
      'num_key_value_heads': llm.kv_heads,
      'intermediate_size': llm.mlp,
      'vocab_size': llm.vocab,
      'rms_norm_eps': llm.norm_eps,
      'rope_theta': llm.rope_theta,
      'qk_norm': llm.qk_norm,
      'layer_module': 'Qwen2MoTDecoderLayer',
      'tie_word_embeddings': False,
      'attention_dropout': 0.0,
      'max_position_embeddings': 32768,
      **_LLM,
    },
    'vit_config': {
      'hidden_size': vit.hidden,
      'num_hidden_layers': vit.layers + 1,
      'num_attention_heads': vit.heads,
      'intermediate_size': vit.mlp,
      'patch_size': vit.patch,
      'num_channels': vit.channels,
      'image_size': vit.table * vit.patch,
      'layer_norm_eps': vit.norm_eps,
      **_VIT,
    },
    'config': {
      'latent_patch_size': model.latent_patch,
      'max_latent_size': model.latent_table,
      'vit_max_num_patch_per_side': model.vit_table,
      'vae_config': {'downsample': downsample, 'z_channels': ae.z_channels},
      **_MODEL,
    },
    'ae_config': {
      'in_channels': ae.channels,
      'out_ch': ae.channels,
      'resolution': 256,
      'downsample': downsample,
      'ch': ae.ch,
      'ch_mult': list(ae.ch_mult),
      'num_res_blocks': ae.num_res_blocks,
      'z_channels': ae.z_channels,
      'scale_factor': ae.scale_factor,
      'shift_factor': ae.shift_factor,
    },
  }
  ours, theirs = _flat(model), _flat(_parse(files))
  different = [
    f'{name} = {value!r} (BAGEL: {theirs[name]!r})'
    for name, value in ours.items()
    if value != theirs[name]
  ]
  if different:
    raise BagelError(f'BAGEL has no such model: {", ".join(different)}.')
  return files


def _flat(model: BagelConfig) -> dict[str, Any]:
  """All fields by name; fields of a part are named `part.field`."""
  flat = {}
  for name, value in dataclasses.asdict(model).items():
    if isinstance(value, dict):
      flat |= {f'{name}.{field}': v for field, v in value.items()}
    else:
      flat[name] = value
  return flat
