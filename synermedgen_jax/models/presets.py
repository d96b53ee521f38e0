"""Model shapes by name, from `tiny` (two CPU cores) to `bagel_7b`."""

from __future__ import annotations

import dataclasses

from synermedgen_jax.core.chips import Chip
from synermedgen_jax.models.autoencoder import AutoencoderConfig
from synermedgen_jax.models.bagel_config import BagelConfig
from synermedgen_jax.models.mot import MoTConfig
from synermedgen_jax.models.vit import ViTConfig


def tiny() -> BagelConfig:
  """About 1.5 M parameters for grey 64 x 64 slices, trained from scratch."""
  return BagelConfig(
    llm=MoTConfig(
      hidden=96,
      layers=4,
      heads=4,
      kv_heads=2,
      head_dim=24,
      mlp=256,
      vocab=512,
      rope_theta=1e4,
    ),
    vit=ViTConfig(
      hidden=96,
      layers=2,
      heads=4,
      mlp=192,
      patch=32,
      channels=1,
      table=2,
    ),
    autoencoder=AutoencoderConfig(
      channels=1,
      ch=32,
      ch_mult=(1,),
      num_res_blocks=1,
      z_channels=8,
      space_to_depth=4,
      norm_groups=8,
    ),
    latent_patch=2,
    latent_table=8,
    vit_table=2,
    connector_norm=True,
  )


def small() -> BagelConfig:
  """About 2 M parameters for grey 64 x 64 slices; has weights/small."""
  return BagelConfig(
    llm=MoTConfig(
      hidden=96,
      layers=5,
      heads=4,
      kv_heads=4,
      head_dim=32,
      mlp=256,
      vocab=512,
      rope_theta=1e4,
    ),
    vit=ViTConfig(
      hidden=128,
      layers=3,
      heads=4,
      mlp=256,
      patch=32,
      channels=1,
      table=2,
    ),
    # 16 latent values per token: more crowd out source and noise at width 96.
    autoencoder=dataclasses.replace(tiny().autoencoder, z_channels=4),
    latent_patch=2,
    latent_table=8,
    vit_table=2,
    connector_norm=True,
  )


def desk() -> BagelConfig:
  """`small` with ViT tokens of 8 x 8 pixels: 64 instead of 4 per slice."""
  model = small()
  vit = dataclasses.replace(model.vit, patch=8, table=8)
  return dataclasses.replace(model, vit=vit, vit_table=8)


def base_1b() -> BagelConfig:
  """Qwen2.5-0.5B twice, a ViT-B, the FLUX VAE: for one accelerator.

  Slices have as many tokens as with `bagel_7b`, so configs serve both.
  """
  return BagelConfig(
    llm=MoTConfig(
      hidden=896,
      layers=24,
      heads=14,
      kv_heads=2,
      head_dim=64,
      mlp=4864,
      vocab=152064,
    ),
    vit=ViTConfig(
      hidden=768,
      layers=12,
      heads=12,
      mlp=3072,
      patch=14,
      channels=3,
      table=70,
    ),
    autoencoder=_flux(),
    vit_table=70,
  )


def bagel_7b() -> BagelConfig:
  """BAGEL-7B-MoT: Qwen2.5-7B twice, SigLIP so400m/14, the FLUX VAE."""
  return BagelConfig(
    llm=MoTConfig(
      hidden=3584,
      layers=28,
      heads=28,
      kv_heads=4,
      head_dim=128,
      mlp=18944,
      vocab=152064,
    ),
    vit=ViTConfig(
      hidden=1152,
      layers=26,
      heads=16,
      mlp=4304,
      patch=14,
      channels=3,
      table=70,
    ),
    autoencoder=_flux(),
  )


def _flux() -> AutoencoderConfig:
  return AutoencoderConfig(
    channels=3, ch=128, ch_mult=(1, 2, 4, 4), num_res_blocks=2, z_channels=16
  )


PRESETS = {
  'tiny': tiny,
  'small': small,
  'desk': desk,
  'base_1b': base_1b,
  'bagel_7b': bagel_7b,
}


# (preset, chip) whose memory holds the matrix products of all layers, with the
# rows of the configs (docs/scaling.md).
_HOLDS_PRODUCTS = {('bagel_7b', 'v5p')}


def remat(name: str, chip: Chip | None) -> str:
  """The recomputation that a preset needs; see `layers.REMAT_POLICIES`.

  Args:
    name: a preset, or another model.
    chip: the chip that it trains on, if it is known.
  """
  holds = chip is not None and (name, chip.name) in _HOLDS_PRODUCTS
  return 'dots' if holds else 'full'


def preset(name: str) -> BagelConfig:
  """The preset called `name`; ValueError lists all names."""
  try:
    return PRESETS[name]()
  except KeyError:
    raise ValueError(
      f'Unknown preset {name!r}: expected one of {", ".join(PRESETS)}.'
    ) from None
