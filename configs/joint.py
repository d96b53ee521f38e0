"""Joint training: understanding and synthesis in one step.

  python -m synermedgen_jax.main --config=configs/joint.py:tiny \
      --config.store=STORE --config.init_from=RUN/autoencoder \
      --workdir=RUN/joint

The paper trains the stages one after the other and leaves this open. CE : MSE
is 1 : 1 as in BAGEL's recipe.
"""

from ml_collections import ConfigDict

from synermedgen_jax.config.defaults import (
  PHANTOM_ROUTE_WEIGHTS,
  WORDS_OF_SCENES,
  default_config,
)


def get_config(model: str = 'tiny') -> ConfigDict:
  config = default_config()
  config.stage = 'joint'
  config.model = model

  config.tasks = {
    'cts': 0.1,
    'mi': 0.2,
    'tia': 0.2,
    'synthesis': 0.5,
    'vlm': 0.0,
    'editing': 0.0,
  }
  config.prompts = 'short'
  # BAGEL's own formats, for the tasks `vlm` and `editing` (docs/data.md).
  config.bagel_files = {
    'vlm': '',
    'images': '',
    'editing': '',
    'val_vlm': '',
    'val_editing': '',
  }
  config.capacity = {'und': 80, 'gen': 128, 'vit': 20, 'images': 2}
  config.rows = 8

  config.trainable = (
    (r'autoencoder/.*', 0.0),
    (r'(vit|latent)_pos_embed', 0.0),
    (r'.*', 1.0),
  )
  config.objective = {'ntp_weight': 1.0, 'flow_weight': 1.0, 'train_shift': 4.0}
  config.steps = 3000
  config.learning_rate = 2e-3
  config.warmup = 100
  config.ema = 0.995
  if model == 'small':
    _small_recipe(config)
  return config


def _small_recipe(config: ConfigDict) -> None:
  """From the small base: every part at the rate of its own stage."""
  config.tasks.update({'cts': 0.125, 'mi': 0.125, 'tia': 0.25})
  # A question of TIA (73 tokens) and a pair to synthesise fill a row.
  config.capacity = {'und': 100, 'gen': 128, 'vit': 24, 'images': 2}
  config.streams = config.reader_threads = 1
  config.new_words = WORDS_OF_SCENES
  config.route_weights = PHANTOM_ROUTE_WEIGHTS
  config.augment.update({'mirror': 0.5, 'warp': 0.6, 'noise': 0.1})
  config.trainable = (
    (r'autoencoder/.*', 0.0),
    (r'(vit|latent)_pos_embed', 0.0),
    # Of 1.4e-3, for the 3e-3 of Stage II.
    (r'(vae2llm|llm2vae|time_embedder)/.*', 2.1),
    (r'mot/(layers/gen|gen_norm)/.*', 2.1),
    (r'(embed_tokens|lm_head)/.*', 1.0),
    (r'(vit|connector)/.*', 1.5),
    (r'mot/(layers/und|und_norm)/.*', 0.3),
  )
  config.objective.train_shift = 16.0
  config.learning_rate = 1.4e-3
