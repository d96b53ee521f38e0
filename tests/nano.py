"""A model and configs so small that a stage trains in seconds."""

import importlib.util
from pathlib import Path

from store_fakes import CANVAS

from synermedgen_jax.core.batch import Capacity
from synermedgen_jax.models.autoencoder import AutoencoderConfig
from synermedgen_jax.models.bagel import BagelConfig
from synermedgen_jax.models.mot import MoTConfig
from synermedgen_jax.models.vit import ViTConfig

CONFIGS = Path(__file__).parents[1] / 'configs'

MODEL = BagelConfig(
  llm=MoTConfig(
    hidden=8,
    layers=1,
    heads=2,
    kv_heads=2,
    head_dim=4,
    mlp=8,
    vocab=512,
    rope_theta=1e4,
  ),
  vit=ViTConfig(
    hidden=8, layers=1, heads=2, mlp=8, patch=8, channels=1, table=2
  ),
  autoencoder=AutoencoderConfig(
    channels=1,
    ch=4,
    ch_mult=(1,),
    num_res_blocks=1,
    z_channels=2,
    space_to_depth=4,
    norm_groups=2,
  ),
  latent_table=2,
  vit_table=2,
  position_base=100.0,
  connector_norm=True,
  dtype='float32',
)
IMAGE = {'vit_side': CANVAS, 'vae_side': CANVAS}
GEOMETRY = MODEL.image_geometry(**IMAGE)
# One synthesis a row; a question takes most of a row.
CAPACITY = Capacity(und=96, gen=8, vit=20, images=2)


def config(name: str, store, **values):
  """`configs/NAME.py` for the model `nano`, two steps long."""
  path = CONFIGS / f'{name}.py'
  spec = importlib.util.spec_from_file_location(name, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config('nano')
  config.store = str(store)
  config.image = IMAGE
  config.capacity = {
    'und': 96,
    'gen': 0 if name == 'stage1' else 8,
    'vit': 0 if name == 'autoencoder' else 20,
    'images': 0 if name == 'stage1' else 2,
  }
  config.rows = 2
  config.packing_bins = 2
  config.steps = config.log_every = config.val_every = 2
  config.val_batches = 1
  config.warmup = 0
  config.update(values)
  return config
