"""The detail path of the demo, on a frozen model.

  python -m synermedgen_jax.main --config=configs/small/detail.py \\
      --config.store=STORE --config.init_from=RUN/stage2_detail \\
      --workdir=RUN/detail

RUN/stage2_detail is a run of `stage2_detail.py`. A run of `stage2.py` can be
the start too: the path is new then (docs/detail.md).

Hardware: two CPU cores; `launch/demo.sh` sets `steps` to what ends in minute
ten. Result: docs/detail.md.
"""

from ml_collections import ConfigDict

from synermedgen_jax.config.defaults import default_config


def get_config() -> ConfigDict:
  config = default_config()
  config.stage = 'ucg'
  config.model = 'small'
  config.detail = 16
  config.compute = {
    'dtype': 'float32',
    'remat': 'none',
    'attention': '',
    'unroll': 5,
  }
  config.tokenizer = 'project'
  config.prompts = 'short'

  config.tasks = {'synthesis': 1.0, 'editing': 0.0}
  config.image = {'vit_size': (64, 64), 'vae_size': (64, 64)}
  config.dropout = {'text': 0.0, 'vae': 0.0, 'vit': 0.0}
  # 30 subjects a cohort are few enough to be memorised without.
  config.augment = {'mirror': 0.5, 'warp': 0.6, 'noise': 0.0}
  config.capacity = {'und': 24, 'gen': 128, 'vit': 4, 'images': 2}
  config.rows = 8
  config.streams = config.reader_threads = 1
  config.mesh = (-1, 1, 1)

  config.trainable = ((r'detail/.*', 1.0), (r'.*', 0.0))
  # Sampling in one step starts near noise, so training does too.
  config.objective = {'flow_weight': 1.0, 'train_shift': 16.0}
  config.steps = 1400
  config.optimizer = 'muon'
  config.learning_rate = 3e-3
  config.warmup = 20
  config.decay = 'cosine'
  config.b1, config.b2, config.eps = 0.9, 0.99, 1e-8
  config.ema = 0.995

  # One Euler step predicts the mean, with which a weak model scores highest.
  config.sampling.points = 2
  config.sampling.shift = 1.0
  # The mean of draws of the detail path has smaller errors than one.
  config.sampling.draws = 32
  config.sampling.guidance.update(text=1.0, image=1.0, renorm='global')

  config.checkpoint_every = 500
  return config
