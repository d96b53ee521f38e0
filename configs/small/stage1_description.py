"""Stage I of the demo with a fourth task: slices described in words.

  python -m synermedgen_jax.main --config=configs/small/stage1_description.py \\
      --config.store=STORE --workdir=RUN/stage1_description

`evaluate` reports the accuracy of every fact: modality, region, plane, level,
and lesion, side and size where `prepare` had a lesion mask, as phantoms have.
Images are not mirrored in this task, as its answers name sides.

Hardware: one CPU core, 10 minutes. Result on the 12 validation subjects of 30
phantoms per cohort, 480 questions, accuracy (chance): modality 0.83 (0.23),
region 0.99 (0.73), level 0.67 (0.37); lesions are not learned: lesion 0.78
(0.83), side 0.41 (0.47), size 0.29 (0.39). CTS 0.52, MI 0.89, TIA 0.80.
"""

from ml_collections import ConfigDict

from synermedgen_jax.config.defaults import default_config


def get_config() -> ConfigDict:
  config = default_config()
  config.stage = 'gau'
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

  config.tasks = {'cts': 0.15, 'mi': 0.15, 'tia': 0.3, 'description': 0.4}
  config.image = {'vit_size': (64, 64), 'vae_size': (64, 64)}
  config.augment = {'mirror': 0.5, 'warp': 0.0, 'noise': 0.1}
  # A question of TIA (73 tokens) and another one (55) fill a row; descriptions
  # have up to 63.
  config.capacity = {'und': 128, 'gen': 0, 'vit': 28, 'images': 0}
  config.rows = 8
  config.streams = config.reader_threads = 1
  config.mesh = (-1, 1, 1)

  config.trainable = (
    (r'autoencoder/.*', 0.0),
    (r'(vit|latent)_pos_embed', 0.0),
    (r'(vae2llm|llm2vae|time_embedder)/.*', 0.0),
    (r'mot/(layers/gen|gen_norm)/.*', 0.0),
    (r'(embed_tokens|lm_head)/.*', 1.0),
    # The looks of the modalities are new.
    (r'(vit|connector)/.*', 1.5),
    # The heads that compare are trained; larger steps would undo them.
    (r'mot/(layers/und|und_norm)/.*', 0.3),
  )
  config.objective = {
    'ntp_weight': 1.0,
    'task_weights': {'cts': 1.0, 'mi': 1.0, 'tia': 1.0, 'description': 1.0},
  }
  config.steps = 800
  config.optimizer = 'muon'
  config.learning_rate = 1.4e-3
  config.warmup = 100
  config.decay = 'cosine'
  config.b1, config.b2, config.eps = 0.9, 0.95, 1e-8
  config.ema = 0.0

  config.sampling.points = 2
  config.sampling.shift = 1.0
  config.sampling.guidance.update(text=1.0, image=1.0, renorm='global')

  config.val_every = 400
  config.checkpoint_every = 400
  return config
