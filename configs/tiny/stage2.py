"""Stage II of the model `tiny`: latent flow matching on 64 x 64 phantoms.

  python -m synermedgen_jax.main --config=configs/tiny/stage2.py \\
      --config.store=STORE --config.init_from=RUN/stage1 --workdir=RUN/stage2

Hardware: two CPU cores. Result: validation flow loss 0.35 after 1,200 steps,
SSIM 0.62 after 5,000 (projects/small_base/README.md).
"""

from ml_collections import ConfigDict

from synermedgen_jax.config.defaults import default_config


def get_config() -> ConfigDict:
  config = default_config()
  config.stage = 'ucg'
  config.model = 'tiny'
  config.compute = {
    'dtype': 'float32',
    'remat': 'none',
    'attention': '',
    'unroll': 4,
  }
  config.tokenizer = 'project'
  config.prompts = 'short'

  config.tasks = {'synthesis': 1.0}
  config.image = {'vit_size': (64, 64), 'vae_size': (64, 64)}
  config.capacity = {'und': 24, 'gen': 128, 'vit': 4, 'images': 2}
  config.dropout = {'text': 0.0, 'vae': 0.0, 'vit': 0.0}
  config.rows = 8
  config.streams = 4
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
  config.objective = {'flow_weight': 1.0, 'train_shift': 4.0}
  config.steps = 5000
  config.optimizer = 'muon'
  config.learning_rate = 1e-2
  config.warmup = 100
  config.decay = 'cosine'
  config.b1, config.b2, config.eps = 0.9, 0.99, 1e-8
  config.ema = 0.995

  # One Euler step predicts the mean, with which a weak model scores highest.
  config.sampling.points = 2
  config.sampling.shift = 1.0
  config.sampling.guidance.update(text=1.0, image=1.0, renorm='global')

  config.checkpoint_every = 2500
  return config
