"""Joint training of the model `tiny` on 64 x 64 phantoms.

  python -m synermedgen_jax.main --config=configs/tiny/joint.py \\
      --config.store=STORE --config.init_from=RUN/autoencoder \\
      --workdir=RUN/joint

Hardware: two CPU cores. Time and result: not run to its end.
"""

from ml_collections import ConfigDict

from synermedgen_jax.config.defaults import default_config


def get_config() -> ConfigDict:
  config = default_config()
  config.stage = 'joint'
  config.model = 'tiny'
  config.compute = {
    'dtype': 'float32',
    'remat': 'none',
    'attention': '',
    'unroll': 4,
  }
  config.tokenizer = 'project'
  config.prompts = 'short'

  config.tasks = {
    'cts': 0.1,
    'mi': 0.2,
    'tia': 0.2,
    'synthesis': 0.5,
    'vlm': 0.0,
    'editing': 0.0,
  }
  config.image = {'vit_size': (64, 64), 'vae_size': (64, 64)}
  config.capacity = {'und': 80, 'gen': 128, 'vit': 20, 'images': 2}
  config.dropout = {'text': 0.0, 'vae': 0.0, 'vit': 0.0}
  config.rows = 8
  config.streams = 4
  config.mesh = (-1, 1, 1)

  config.trainable = (
    (r'autoencoder/.*', 0.0),
    (r'(vit|latent)_pos_embed', 0.0),
    (r'.*', 1.0),
  )
  config.objective = {'ntp_weight': 1.0, 'flow_weight': 1.0, 'train_shift': 4.0}
  config.steps = 3000
  config.optimizer = 'muon'
  config.learning_rate = 2e-3
  config.warmup = 100
  config.decay = 'cosine'
  config.b1, config.b2, config.eps = 0.9, 0.99, 1e-8
  config.ema = 0.995

  config.sampling.points = 2
  config.sampling.shift = 1.0
  config.sampling.guidance.update(text=1.0, image=1.0, renorm='global')
  return config
