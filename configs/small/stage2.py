"""Stage II of the demo: synthesis of phantoms, `und` frozen.

  python -m synermedgen_jax.main --config=configs/small/stage2.py \\
      --config.store=STORE --config.init_from=RUN/stage1 --workdir=RUN/stage2

RUN/stage1 is a run of `stage1.py`. `route_weights` suits the phantoms; for
other data, --config.route_weights='()' weighs all routes alike.

Hardware: two CPU cores. Result on held-out phantoms after 3,904 steps: SSIM
0.75, 17 of 22 routes better than both baselines (README.md).
"""

from ml_collections import ConfigDict

from synermedgen_jax.config.defaults import default_config


def get_config() -> ConfigDict:
  config = default_config()
  config.stage = 'ucg'
  config.model = 'small'
  config.compute = {
    'dtype': 'float32',
    'remat': 'none',
    'attention': '',
    'unroll': 5,
  }
  config.tokenizer = 'project'
  config.prompts = 'short'

  config.tasks = {'synthesis': 1.0, 'editing': 0.0}
  # CBCT is nearly CT, and the 12 routes of BraTS share one brain. A pelvis or a
  # body shares little with the other cohorts.
  config.route_weights = (
    (r'.*cbct.*', 0.4),
    (r'brats_.*', 0.6),
    (r'pelvis_.*', 3.0),
    (r'whole_body_.*', 2.0),
  )
  config.image = {'vit_size': (64, 64), 'vae_size': (64, 64)}
  config.dropout = {'text': 0.0, 'vae': 0.0, 'vit': 0.0}
  # 30 subjects a cohort are few enough to be memorised without.
  config.augment = {'mirror': 0.5, 'warp': 0.6, 'noise': 0.0}
  config.capacity = {'und': 24, 'gen': 128, 'vit': 4, 'images': 2}
  config.rows = 8
  config.streams = config.reader_threads = 1
  config.mesh = (-1, 1, 1)

  config.trainable = (
    (r'autoencoder/.*', 0.0),
    (r'(vit|latent)_pos_embed', 0.0),
    (r'(vit|connector|embed_tokens|lm_head)/.*', 0.0),
    (r'mot/(layers/und|und_norm)/.*', 0.0),
    (r'(vae2llm|llm2vae|time_embedder)/.*', 1.0),
    (r'mot/(layers/gen|gen_norm)/.*', 1.0),
  )
  # Sampling in one step starts near noise, so training does too.
  config.objective = {'flow_weight': 1.0, 'train_shift': 16.0}
  config.steps = 900
  config.optimizer = 'muon'
  config.learning_rate = 3e-3
  config.warmup = 20
  config.decay = 'cosine'
  config.b1, config.b2, config.eps = 0.9, 0.99, 1e-8
  config.ema = 0.995

  # One Euler step predicts the mean, with which a weak model scores highest.
  config.sampling.points = 2
  config.sampling.shift = 1.0
  config.sampling.guidance.update(text=1.0, image=1.0, renorm='global')

  config.checkpoint_every = 500
  return config
