"""Stage 0: a KL autoencoder for slices, for runs without a pretrained VAE.

  python -m synermedgen_jax.main --config=configs/autoencoder.py:tiny \\
      --config.store=STORE --workdir=RUN/autoencoder

tiny: two CPU cores, 64 x 64 phantom slices.
"""

from ml_collections import ConfigDict


def get_config(model: str = 'tiny') -> ConfigDict:
  config = ConfigDict()
  config.stage = 'autoencoder'
  config.model = model
  config.store = ''
  config.init_from = ''
  config.seed = 0
  config.tokenizer = 'project'

  # What is asked, and how a slice becomes tokens.
  config.tasks = {'reconstruction': 1.0}
  config.first_tasks = {}
  config.first_examples = 0
  config.routes = ()
  config.neighbours = 3
  config.image = {'vit_side': 64, 'vae_side': 64}
  config.capacity = {'und': 8, 'gen': 4 * 64, 'vit': 0, 'images': 4}
  config.rows = 1
  config.packing_bins = 4
  config.reader_threads = 2
  config.dropout = {'text': 0.0, 'vae': 0.0, 'vit': 0.0}

  # Which parameters train: (regular expression, learning-rate multiplier).
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
  config.weight_decay = 0.0
  config.clip = 1.0
  config.ema = 0.0

  config.mesh = (-1, 1, 1)  # data, fsdp, tensor
  config.remat = ''  # none, dots or full; '' = the preset's own
  config.attention = ''  # an implementation's name; '' = the platform's own
  config.log_every = 100
  config.val_every = 500
  config.val_batches = 16
  config.checkpoint_every = 800
  config.keep = 1  # the newest so many checkpoints
  config.keep_every = 0  # and those of every so many steps; 0 = no others
  return config
