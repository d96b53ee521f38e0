"""Stage 0 of the model `tiny`: an autoencoder for 64 x 64 phantom slices.

  python -m projects.small_base.start --model=tiny --output=RUN/start
  python -m synermedgen_jax.main --config=configs/tiny/autoencoder.py \\
      --config.store=STORE --config.init_from=RUN/start \\
      --workdir=RUN/autoencoder

The initial weights hold attention heads for a small model; later stages need
them.

Hardware: two CPU cores. Result: SSIM 0.959 in the body after 1,500 steps of
four slices (projects/small_base/README.md).
"""

from ml_collections import ConfigDict

from synermedgen_jax.config.defaults import default_config


def get_config() -> ConfigDict:
  config = default_config()
  config.stage = 'autoencoder'
  config.model = 'tiny'
  config.compute = {
    'dtype': 'float32',
    'remat': 'none',
    'attention': '',
    'unroll': 4,
  }
  config.tokenizer = 'project'
  config.prompts = 'short'

  config.tasks = {'reconstruction': 1.0}
  config.image = {'vit_size': (64, 64), 'vae_size': (64, 64)}
  config.capacity = {'und': 8, 'gen': 4 * 64, 'vit': 0, 'images': 4}
  config.rows = config.streams = 1
  config.packing_bins = 4
  config.mesh = (-1, 1, 1)

  config.trainable = (
    (r'autoencoder/latent_(shift|scale)', 0.0),
    (r'autoencoder/.*', 1.0),
    (r'.*', 0.0),
  )
  config.objective = {'l2_weight': 2.0, 'kl_weight': 5e-4}
  config.steps = 1600
  config.optimizer = 'muon'
  config.learning_rate = 1e-2
  config.warmup = 50
  config.decay = 'cosine'
  config.b1, config.b2, config.eps = 0.9, 0.99, 1e-8
  config.ema = 0.0

  config.log_every = 100
  config.val_batches = 16
  config.checkpoint_every = 800
  return config
