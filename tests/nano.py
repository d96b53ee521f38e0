"""A model and configs so small that a stage trains in seconds."""

import contextlib
import fcntl
import functools
import importlib
import shutil
from pathlib import Path

import jax
import pytest
from flax import linen as nn
from jax.experimental.compilation_cache import compilation_cache
from store_fakes import CANVAS, write_store

from synermedgen_jax.core.batch import Capacity
from synermedgen_jax.models import presets
from synermedgen_jax.models.autoencoder import AutoencoderConfig
from synermedgen_jax.models.bagel import Bagel, init_params
from synermedgen_jax.models.bagel_config import BagelConfig
from synermedgen_jax.models.compute import Compute
from synermedgen_jax.models.mot import MoTConfig
from synermedgen_jax.models.vit import ViTConfig
from synermedgen_jax.training import build, loop

CONFIGS = Path(__file__).parents[1] / 'configs' / 'tiny'

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
  connector_norm=True,
)
COMPUTE = Compute(dtype='float32')
BAGEL = Bagel(MODEL, COMPUTE)
IMAGE = {'vit_size': (CANVAS, CANVAS), 'vae_size': (CANVAS, CANVAS)}
GEOMETRY = MODEL.image_geometry(**IMAGE)
# One synthesis a row; a question takes most of a row.
CAPACITY = Capacity(und=96, gen=8, vit=20, images=2)


def initial_params(model: BagelConfig = MODEL):
  """Random parameters, of one compiled program."""
  init = jax.jit(functools.partial(init_params, model))
  return nn.unbox(init(jax.random.key(0)))


def config_file(name: str):
  """The config of a module, or of `configs/tiny/NAME.py`."""
  module = name if '.' in name else f'configs.tiny.{name}'
  return importlib.import_module(module).get_config()


def train(config, workdir, notice=None):
  """Trains a stage as the command does."""
  return loop.train(build.build(config), workdir, notice)


def config(name: str, store, /, **values):
  """`configs/tiny/NAME.py` for the model `nano`, two steps long."""
  config = config_file(name)
  config.model = 'nano'
  config.compute.unroll = 1
  config.from_scratch = True
  config.store = str(store)
  config.image = IMAGE
  config.capacity = {
    'und': 96,
    'gen': 0 if name == 'stage1' else 8,
    'vit': 0 if name == 'autoencoder' else 20,
    'images': 0 if name == 'stage1' else 2,
  }
  config.rows = config.streams = 2
  config.packing_bins = 2
  config.prompts = 'short'
  config.steps = config.log_every = config.val_every = 2
  config.val_batches = 1
  config.warmup = 0
  if name != 'autoencoder':
    config.optimizer = 'adamw'  # quick to compile; that stage has Muon
  config.update(values)
  return config


# Stage -> the one it starts from. Joint training stops half way to save.
STAGES = {
  'autoencoder': '',
  'stage1': 'autoencoder',
  'stage2': 'stage1',
  'joint': 'autoencoder',
}
JOINT = {
  'steps': 4,
  'log_every': 1,
  'checkpoint_every': 2,
  'val_every': 4,
  'keep': 2,
}


def stage_config(name: str, root: Path, /, **values):
  """The config with which `trained_stages` trained a stage."""
  start = STAGES[name] and str(root / STAGES[name])
  values = {'init_from': start} | (JOINT if name == 'joint' else {}) | values
  return config(name, root / 'store', **values)


def trained_stages(root: Path) -> Path:
  """A folder with a store and all four stages; processes share the work."""
  root.mkdir(exist_ok=True)
  runs = root / 'runs'
  with (root / 'lock').open('w') as lock, pytest.MonkeyPatch.context() as patch:
    fcntl.flock(lock, fcntl.LOCK_EX)
    if not (root / 'done').exists():
      shutil.rmtree(runs, ignore_errors=True)
      patch.setitem(presets.PRESETS, 'nano', lambda: MODEL)
      write_store(runs / 'store')
      for name in STAGES:
        train(stage_config(name, runs), runs / name)
      (root / 'done').touch()
  return runs


@contextlib.contextmanager
def quick_compiles(cache: Path):
  """Programs are hardly optimised, and the same one is compiled once."""
  values = {
    'jax_disable_most_optimizations': True,
    'jax_compilation_cache_dir': str(cache),
    'jax_persistent_cache_min_compile_time_secs': 0.0,
  }
  before = {name: jax.config.values[name] for name in values}
  try:
    for name, value in values.items():
      jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield
  finally:
    for name, value in before.items():
      jax.config.update(name, value)
    compilation_cache.reset_cache()
