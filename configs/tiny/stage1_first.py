"""Stage I of the model `tiny` from random weights, its first part: MI and TIA.

  python -m synermedgen_jax.main --config=configs/tiny/stage1_first.py \\
      --config.store=STORE --config.init_from=RUN/autoencoder \\
      --workdir=RUN/stage1_first

CTS, at chance for long, has a third of the loss whatever its share of the
examples and keeps TIA from forming: it joins in `stage1.py`, which starts from
this run.

Hardware: two CPU cores. Time and result: not run as a run of its own.
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

  config.tasks = {'mi': 0.25, 'tia': 0.75}
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
  config.steps = 1200
  config.optimizer = 'muon'
  config.learning_rate = 3e-3
  config.warmup = 100
  config.decay = 'cosine'
  config.b1, config.b2, config.eps = 0.9, 0.95, 1e-8
  config.ema = 0.0

  config.sampling.points = 2
  config.sampling.shift = 1.0
  config.sampling.guidance.update(text=1.0, image=1.0, renorm='global')

  config.val_every = 400
  config.checkpoint_every = 800
  return config
