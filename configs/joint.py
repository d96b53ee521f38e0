"""Joint training: understanding and synthesis in one step.

  python -m synermedgen_jax.main --config=configs/joint.py:tiny \
      --config.store=STORE --config.init_from=RUN/autoencoder \
      --workdir=RUN/joint

The paper trains the stages one after the other and leaves this open. CE : MSE
is 1 : 1 as in BAGEL's recipe.
"""

from ml_collections import ConfigDict

from synermedgen_jax.training.defaults import WORDS_OF_SCENES, default_config


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
    config.new_words = WORDS_OF_SCENES
  return config
