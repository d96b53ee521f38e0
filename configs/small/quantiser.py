"""The quantiser of codes, on the frozen encoder of the demo.

  python -m synermedgen_jax.main --config=configs/small/quantiser.py \\
      --config.store=STORE --config.init_from=RUN/stage1 \\
      --workdir=RUN/quantiser

Adds 8192 codes (FSQ, arXiv 2309.15505) to the model and trains the decoder with
them, which otherwise only knows latents that were not quantised. The latents of
sources stay. `as_showo.py` and `as_januspro.py` start from this run.

Hardware: two CPU cores, about 5 minutes. Result on held-out phantoms: the truth
through the codes has an SSIM of 0.73, against 0.92 through the autoencoder
alone, and 0.59 with a frozen decoder.
"""

from ml_collections import ConfigDict

from synermedgen_jax.config.defaults import default_config


def get_config() -> ConfigDict:
  config = default_config()
  config.stage = 'quantiser'
  config.model = 'small'
  config.generation = 'masked'  # autoregressive models have the same quantiser
  config.compute = {
    'dtype': 'float32',
    'remat': 'none',
    'attention': '',
    'unroll': 5,
  }
  config.tokenizer = 'project'
  config.prompts = 'short'

  config.tasks = {'reconstruction': 1.0}
  config.image = {'vit_size': (64, 64), 'vae_size': (64, 64)}
  config.augment = {'mirror': 0.5, 'warp': 0.0, 'noise': 0.0}
  config.capacity = {'und': 8, 'gen': 4 * 64, 'vit': 0, 'images': 4}
  config.rows = 4
  config.streams = config.reader_threads = 1
  config.packing_bins = 4
  config.mesh = (-1, 1, 1)

  config.trainable = (
    (r'(quantiser|autoencoder/decoder)/.*', 1.0),
    (r'.*', 0.0),
  )
  config.objective = {'l2_weight': 2.0}
  config.steps = 1000
  config.optimizer = 'muon'
  config.learning_rate = 1e-2
  config.warmup = 50
  config.decay = 'cosine'
  config.b1, config.b2, config.eps = 0.9, 0.99, 1e-8
  config.ema = 0.0

  config.sampling.points = 13
  config.sampling.shift = 1.0
  config.sampling.guidance.update(text=1.0, image=1.0, renorm='global')

  config.val_every = 500
  config.checkpoint_every = 500
  return config
