"""Joint training of the small base on phantoms.

  python -m synermedgen_jax.main --config=configs/small/joint.py \\
      --config.store=STORE --workdir=RUN/joint

Starts from weights/small and trains every part at the rate of its own stage.
`route_weights` suits the phantoms, as in `stage2.py`.

Hardware: two CPU cores. `projects/ablations` compares it with the two stages.
"""

from ml_collections import ConfigDict

from synermedgen_jax.config.defaults import default_config


def get_config() -> ConfigDict:
  config = default_config()
  config.stage = 'joint'
  config.model = 'small'
  config.init_from = 'weights/small'
  config.compute = {
    'dtype': 'float32',
    'remat': 'none',
    'attention': '',
    'unroll': 5,
  }
  config.tokenizer = 'project'
  config.prompts = 'short'

  config.tasks = {
    'cts': 0.125,
    'mi': 0.125,
    'tia': 0.25,
    'synthesis': 0.5,
    'vlm': 0.0,
    'editing': 0.0,
  }
  config.route_weights = (
    (r'.*cbct.*', 0.4),
    (r'brats_.*', 0.6),
    (r'pelvis_.*', 3.0),
    (r'whole_body_.*', 2.0),
  )
  config.image = {'vit_size': (64, 64), 'vae_size': (64, 64)}
  config.dropout = {'text': 0.0, 'vae': 0.0, 'vit': 0.0}
  config.augment = {'mirror': 0.5, 'warp': 0.6, 'noise': 0.1}
  # A question of TIA (73 tokens) and a pair to synthesise fill a row.
  config.capacity = {'und': 100, 'gen': 128, 'vit': 24, 'images': 2}
  config.rows = 8
  config.streams = config.reader_threads = 1
  config.mesh = (-1, 1, 1)

  config.trainable = (
    (r'autoencoder/.*', 0.0),
    (r'(vit|latent)_pos_embed', 0.0),
    # 2.1 x 1.4e-3 is the 3e-3 of Stage II.
    (r'(vae2llm|llm2vae|time_embedder)/.*', 2.1),
    (r'mot/(layers/gen|gen_norm)/.*', 2.1),
    (r'(embed_tokens|lm_head)/.*', 1.0),
    (r'(vit|connector)/.*', 1.5),
    (r'mot/(layers/und|und_norm)/.*', 0.3),
  )
  config.objective = {
    'ntp_weight': 1.0,
    'flow_weight': 1.0,
    'train_shift': 16.0,
  }
  config.steps = 3000
  config.optimizer = 'muon'
  config.learning_rate = 1.4e-3
  config.warmup = 100
  config.decay = 'cosine'
  config.b1, config.b2, config.eps = 0.9, 0.99, 1e-8
  config.ema = 0.995

  config.sampling.points = 2
  config.sampling.shift = 1.0
  config.sampling.guidance.update(text=1.0, image=1.0, renorm='global')
  return config
