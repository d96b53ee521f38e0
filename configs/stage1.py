"""Stage I, generation-aligned understanding: CTS, MI and TIA from the pairs.

  python -m synermedgen_jax.main --config=configs/stage1.py:tiny \\
      --config.store=STORE --config.init_from=RUN/autoencoder \\
      --workdir=RUN/stage1
  python -m synermedgen_jax.main --config=configs/stage1.py:small \\
      --config.store=STORE --config.init_from=weights/small \\
      --workdir=RUN/stage1

Trains ViT, connector and the `und` expert; VAE and `gen` are frozen.
"""

from ml_collections import ConfigDict

from synermedgen_jax.config.defaults import (
  BAGEL_SAMPLING,
  WORDS_OF_SCENES,
  default_config,
)


def get_config(model: str = 'tiny') -> ConfigDict:
  config = default_config()
  config.stage = 'gau'
  config.model = model

  # Shares of the released set are 47 / 15 / 38 %.
  config.tasks = {'cts': 0.4, 'mi': 0.1, 'tia': 0.5, 'vlm': 0.0}
  config.prompts = 'short'
  # BAGEL's own formats, for the task `vlm` (docs/data.md).
  config.bagel_files = {'vlm': '', 'images': '', 'val_vlm': ''}
  config.capacity = {'und': 80, 'gen': 0, 'vit': 20, 'images': 0}
  config.rows = 20

  config.trainable = _trainable()
  config.objective = {
    'ntp_weight': 1.0,
    'task_weights': {'cts': 1.0, 'mi': 1.0, 'tia': 1.0},
  }
  config.steps = 1600
  config.learning_rate = 3e-3
  config.warmup = 100
  config.b1, config.b2, config.eps = 0.9, 0.95, 1e-8

  config.val_every = 400
  config.checkpoint_every = 800
  if model == 'small':
    _small_recipe(config)
  if model == 'bagel_7b':
    _bagel_recipe(config)
  return config


def _trainable(looks: float = 1.0, und: float = 1.0):
  """The table of multipliers: of the ViT and the `und` expert."""
  return (
    (r'autoencoder/.*', 0.0),
    (r'(vit|latent)_pos_embed', 0.0),
    (r'(vae2llm|llm2vae|time_embedder)/.*', 0.0),
    (r'mot/(layers/gen|gen_norm)/.*', 0.0),
    (r'(embed_tokens|lm_head)/.*', 1.0),
    (r'(vit|connector)/.*', looks),
    (r'mot/(layers/und|und_norm)/.*', und),
  )


def _small_recipe(config: ConfigDict) -> None:
  """From the small base, which knows every task's shape (docs/base.md)."""
  config.tasks = {'cts': 0.25, 'mi': 0.25, 'tia': 0.5, 'vlm': 0.0}
  # One question of TIA (73 tokens) and one other (55) fill a row.
  config.capacity = {'und': 128, 'gen': 0, 'vit': 28, 'images': 0}
  config.rows = 8
  config.streams = config.reader_threads = 1
  config.new_words = WORDS_OF_SCENES
  config.augment.update({'mirror': 0.5, 'noise': 0.1})
  # What compares is there, and larger steps would undo it; what the modalities
  # look like is new.
  config.trainable = _trainable(looks=1.5, und=0.3)
  config.steps = 1300
  config.learning_rate = 1.4e-3
  config.val_every = 650


def _bagel_recipe(config: ConfigDict) -> None:
  """BAGEL's released fine-tuning recipe, at its size (docs/scaling.md)."""
  config.tasks = {'cts': 0.47, 'mi': 0.15, 'tia': 0.38, 'vlm': 0.0}
  config.prompts = 'paper'
  # Two questions of five slices fill a row: 28 x 28 ViT tokens a slice.
  config.image = {'vit_side': 392, 'vae_side': 512}
  config.capacity = {'und': 10240, 'gen': 0, 'vit': 12 * 784, 'images': 0}
  config.sampling = BAGEL_SAMPLING
  config.rows = config.streams = 32
  config.optimizer = 'adamw'
  config.learning_rate = 2e-5
  config.warmup = 2000
  config.decay = 'constant'
  config.b1, config.b2, config.eps = 0.9, 0.95, 1e-15
  config.ema = 0.9999
  config.steps = 20000
  config.mesh = (-1, 32, 1)
