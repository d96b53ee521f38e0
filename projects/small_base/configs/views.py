"""The base learns to select the candidate that shows the source's view.

  python -m synermedgen_jax.main \\
      --config=projects/small_base/configs/views.py \\
      --config.init_from=RUN/vision --workdir=RUN/views

Candidates are other scenes or neighbouring views of the same scene. This task
comes first, because training on words would undo the heads that compare. The
rate rises slowly: those heads exist from the first step, and large updates
would undo them before they are useful (README.md).
small: 5 minutes on two CPU cores, as the first 600 steps of one run together
with `questions.py`; not run separately.
"""

from ml_collections import ConfigDict

from synermedgen_jax.config.defaults import default_config


def get_config() -> ConfigDict:
  config = default_config()
  config.stage = 'gau'
  config.model = 'small'
  config.compute = {
    'dtype': 'float32',
    'remat': 'none',
    'attention': '',
    'unroll': 5,
  }
  config.tokenizer = 'project'

  config.modules = ('projects.small_base.tasks',)
  config.tasks = {'view': 1.0}
  config.prompts = 'short'
  config.image = {'vit_size': (64, 64), 'vae_size': (64, 64)}
  config.dropout = {'text': 0.0, 'vae': 0.0, 'vit': 0.0}
  config.mesh = (-1, 1, 1)
  config.capacity = {'und': 224, 'gen': 0, 'vit': 80, 'images': 0}
  config.rows = 4
  config.streams = config.reader_threads = 1

  config.trainable = (
    (r'autoencoder/.*', 0.0),
    (r'(vit|latent)_pos_embed', 0.0),
    (r'(vae2llm|llm2vae|time_embedder)/.*', 0.0),
    (r'mot/(layers/gen|gen_norm)/.*', 0.0),
    (r'(vit|connector|embed_tokens|lm_head)/.*', 1.0),
    # Sharpness of comparisons: few parameters, which have to change a lot.
    (r'mot/layers/und/[qk]_norm/.*', 5.0),
    (r'mot/(layers/und|und_norm)/.*', 1.0),
  )
  config.objective = {'ntp_weight': 1.0}
  config.steps = 600
  config.optimizer = 'muon'
  config.learning_rate = 1.5e-3
  config.warmup = 200
  config.decay = 'constant'
  config.b1, config.b2, config.eps = 0.9, 0.95, 1e-8
  config.ema = 0.0

  config.sampling.points = 2
  config.sampling.shift = 1.0
  config.sampling.guidance.update(text=1.0, image=1.0, renorm='global')

  config.val_every = 500
  config.checkpoint_every = 1000
  config.val_batches = 8
  return config
