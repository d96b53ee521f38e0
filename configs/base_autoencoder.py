"""The base's autoencoder: as configs/autoencoder.py, on drawn scenes alone.

  python -m synermedgen_jax.main --config=configs/base_autoencoder.py:small \\
      --workdir=RUN/base_autoencoder

small: 3 minutes on two free CPU cores, 10 on a shared one. Result to expect on
validation scenes: L1 0.029 (values span 2). Nothing medical goes in;
docs/base.md says what comes back of phantoms that it never saw.
"""

from ml_collections import ConfigDict

from synermedgen_jax.training.defaults import default_config


def get_config(model: str = 'small') -> ConfigDict:
  config = default_config()
  config.stage = 'autoencoder'
  config.model = model

  config.tasks = {'reconstruction': 1.0}
  config.scenes = {'levels': (1.0, 0.0, 0.0, 0.0)}
  config.capacity = {'und': 8, 'gen': 4 * 64, 'vit': 0, 'images': 4}
  config.rows = config.streams = 1
  config.packing_bins = 4

  config.trainable = (
    (r'autoencoder/latent_(shift|scale)', 0.0),
    (r'autoencoder/.*', 1.0),
    (r'.*', 0.0),
  )
  config.objective = {'l2_weight': 2.0, 'kl_weight': 5e-4}
  config.steps = 2000
  config.learning_rate = 1e-2
  config.warmup = 50

  config.log_every = 100
  config.val_batches = 16
  config.checkpoint_every = 1000
  return config
