"""Stage I of the model `tiny` from random weights, its second part: CTS too.

  python -m synermedgen_jax.main --config=configs/tiny/stage1.py \\
      --config.store=STORE --config.init_from=RUN/stage1_first \\
      --workdir=RUN/stage1

Starts from `stage1_first.py`, at the rate that a single run of 1,600 steps
would have reached by then.

Hardware: two CPU cores. Time and result: not run after that start.
"""

from ml_collections import ConfigDict

from synermedgen_jax.config.defaults import default_config


def get_config() -> ConfigDict:
  config = default_config()
  config.stage = 'gau'
  config.model = 'tiny'
  config.compute = {
    'dtype': 'float32',
    'remat': 'none',
    'attention': '',
    'unroll': 4,
  }
  config.tokenizer = 'project'
  config.prompts = 'short'

  config.tasks = {'cts': 0.4, 'mi': 0.1, 'tia': 0.5}
  config.image = {'vit_size': (64, 64), 'vae_size': (64, 64)}
  config.capacity = {'und': 80, 'gen': 0, 'vit': 20, 'images': 0}
  config.rows = 20
  config.streams = 4
  config.mesh = (-1, 1, 1)

  config.trainable = (
    (r'autoencoder/.*', 0.0),
    (r'(vit|latent)_pos_embed', 0.0),
    (r'(vae2llm|llm2vae|time_embedder)/.*', 0.0),
    (r'mot/(layers/gen|gen_norm)/.*', 0.0),
    (r'.*', 1.0),
  )
  config.objective = {'ntp_weight': 1.0}
  config.steps = 400
  config.optimizer = 'muon'
  config.learning_rate = 5e-4
  config.warmup = 20
  config.decay = 'cosine'
  config.b1, config.b2, config.eps = 0.9, 0.95, 1e-8
  config.ema = 0.0

  config.sampling.points = 2
  config.sampling.shift = 1.0
  config.sampling.guidance.update(text=1.0, image=1.0, renorm='global')

  config.val_every = 200
  config.checkpoint_every = 400
  return config
