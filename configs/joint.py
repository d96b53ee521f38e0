"""Joint training: understanding and synthesis in one step.

  python -m synermedgen_jax.main --config=configs/joint.py \\
      --config.init_from=RUN/bagel --config.store=STORE --workdir=RUN/joint

The word after the colon is a preset of `models/presets.py`, or `init_from`;
bagel_7b by default. Trains everything but the autoencoder, with
cross-entropy : squared error 1 : 1 as in BAGEL's released fine-tuning. The
paper trains the stages one after the other and leaves this open.

Hardware: a v5p-64 slice or 16 GPUs of 80 GB. On 64 chips and more,
--config.mesh='(2,32,1)'. Time and result: not run.
"""

from ml_collections import ConfigDict

from synermedgen_jax.config.defaults import default_config


def get_config(model: str = 'bagel_7b') -> ConfigDict:
  config = default_config()
  config.stage = 'joint'
  config.model = model

  # The questions in the shares of Stage I.
  config.tasks = {
    'cts': 0.235,
    'mi': 0.075,
    'tia': 0.19,
    'synthesis': 0.5,
    'vlm': 0.0,
    'editing': 0.0,
  }
  # Three pairs and one question of five slices fill a row.
  config.capacity = {'und': 7168, 'gen': 6 * 1024, 'vit': 8 * 784, 'images': 6}

  # Multipliers of config.learning_rate, 2e-5.
  config.trainable = (
    (r'autoencoder/.*', 0.0),
    (r'(vit|latent)_pos_embed', 0.0),
    (r'.*', 1.0),
  )
  config.objective = {'ntp_weight': 1.0, 'flow_weight': 1.0, 'train_shift': 1.0}
  return config
