"""Stage II, understanding-conditioned generation: latent flow matching.

  python -m synermedgen_jax.main --config=configs/stage2.py:tiny \\
      --config.store=STORE --config.init_from=RUN/stage1 \\
      --workdir=RUN/stage2

With `:small`, from a Stage I that began at weights/small; its routes weigh as
suits the phantoms (`--config.route_weights='()'`: all alike).
Trains the `gen` expert and its projections. The paper's figure freezes ViT
and `und`, its text fine-tunes `und` further: set their multiplier to 1.0 for
that.
"""

from ml_collections import ConfigDict

from synermedgen_jax.config.defaults import (
  BAGEL_SAMPLING,
  PHANTOM_ROUTE_WEIGHTS,
  default_config,
)


def get_config(model: str = 'tiny') -> ConfigDict:
  config = default_config()
  config.stage = 'ucg'
  config.model = model

  config.tasks = {'synthesis': 1.0, 'editing': 0.0}
  config.prompts = 'short'
  # BAGEL's own formats, for the task `editing` (docs/data.md).
  config.bagel_files = {'editing': '', 'val_editing': ''}
  config.capacity = {'und': 24, 'gen': 128, 'vit': 4, 'images': 2}
  config.rows = 8

  config.trainable = (
    (r'autoencoder/.*', 0.0),
    (r'(vit|latent)_pos_embed', 0.0),
    (r'(vit|connector|embed_tokens|lm_head)/.*', 0.0),
    (r'mot/(layers/und|und_norm)/.*', 0.0),
    (r'(vae2llm|llm2vae|time_embedder)/.*', 1.0),
    (r'mot/(layers/gen|gen_norm)/.*', 1.0),
  )
  # Timesteps near noise are what sampling in one step is about.
  config.objective = {'flow_weight': 1.0, 'train_shift': 4.0}
  config.steps = 5000
  config.learning_rate = 1e-2
  config.warmup = 100
  config.ema = 0.995

  config.checkpoint_every = 2500
  if model == 'small':
    _small_recipe(config)
  if model == 'bagel_7b':
    _bagel_recipe(config)
  return config


def _small_recipe(config: ConfigDict) -> None:
  """From the small base, whose `gen` expert has drawn before."""
  config.streams = config.reader_threads = 1
  config.route_weights = PHANTOM_ROUTE_WEIGHTS
  # As they are, 30 subjects a cohort would be known by heart.
  config.augment.update({'mirror': 0.5, 'warp': 0.6})
  config.objective.train_shift = 16.0
  config.steps = 900
  config.learning_rate = 3e-3
  config.warmup = 20
  config.checkpoint_every = 500


def _bagel_recipe(config: ConfigDict) -> None:
  """BAGEL's released fine-tuning recipe, at its size (docs/scaling.md)."""
  config.prompts = 'paper'
  # Four pairs fill a row: a slice is 32 x 32 latent and 28 x 28 ViT tokens.
  config.image = {'vit_side': 392, 'vae_side': 512}
  config.capacity = {'und': 3456, 'gen': 8 * 1024, 'vit': 4 * 784, 'images': 8}
  config.rows = config.streams = 32
  config.dropout = {'text': 0.1, 'vae': 0.3, 'vit': 0.3}
  config.objective.train_shift = 1.0
  config.sampling = BAGEL_SAMPLING
  config.optimizer = 'adamw'
  config.learning_rate = 2e-5
  config.warmup = 2000
  config.decay = 'constant'
  config.b1, config.b2, config.eps = 0.9, 0.95, 1e-15
  config.ema = 0.9999
  config.steps = 20000
  config.mesh = (-1, 32, 1)
