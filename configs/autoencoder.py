"""Stage 0: a KL autoencoder for slices, for runs without a pretrained VAE.

  python -m synermedgen_jax.main --config=configs/autoencoder.py:tiny \\
      --config.store=STORE --workdir=RUN/autoencoder

tiny: two CPU cores, 64 x 64 phantom slices.
"""

from ml_collections import ConfigDict

from synermedgen_jax.config.defaults import default_config


def get_config(model: str = 'tiny') -> ConfigDict:
  config = default_config()
  config.stage = 'autoencoder'
  config.model = model
  if model in ('tiny', 'small'):
    config.compute.update({'dtype': 'float32', 'remat': 'none', 'unroll': 5})

  # What is asked, and how a slice becomes tokens.
  config.tasks = {'reconstruction': 1.0}
  config.capacity = {'und': 8, 'gen': 4 * 64, 'vit': 0, 'images': 4}
  config.rows = config.streams = 1
  config.packing_bins = 4

  # Which parameters train: (regular expression, learning-rate multiplier).
  config.trainable = (
    (r'autoencoder/latent_(shift|scale)', 0.0),
    (r'autoencoder/.*', 1.0),
    (r'.*', 0.0),
  )
  config.objective = {'l2_weight': 2.0, 'kl_weight': 5e-4}
  config.steps = 1600
  config.learning_rate = 1e-2
  config.warmup = 50

  config.log_every = 100
  config.val_batches = 16
  config.checkpoint_every = 800
  return config
