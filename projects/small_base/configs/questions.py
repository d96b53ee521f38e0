"""The base learns to look: questions about drawn scenes, no synthesis yet.

  python -m synermedgen_jax.main \\
      --config=projects/small_base/configs/questions.py \\
      --config.init_from=RUN/vision --workdir=RUN/questions

Which candidate shows the source's view, among other scenes and among
neighbouring views of its own, alone at first; then the style of each panel too.
What turned one picture into another comes later (`changes.py`): a task at
chance would undo those that are forming. The rate rises slowly: the heads that
compare are there from the start, and large updates undo them before they are of
use (docs/base.md).
small: 20 minutes on two CPU cores. Result to expect on validation scenes: view
0.73 (chance 0.25), style 0.81 (all four panels).
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
  config.prompts = 'short'

  # What compares comes first: words would undo it.
  config.first_tasks = {'view': 1.0}
  config.first_examples = 9600
  config.tasks = {'view': 0.5, 'style': 0.5}
  # same, other_scenes, apart, neighbours: `scenes.questions.LEVELS`
  config.scenes = {'levels': (0.1, 0.3, 0.25, 0.35)}
  config.image = {'vit_side': 64, 'vae_side': 64}
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
    # How sharply images are told apart: a few numbers with a long way to go.
    (r'mot/layers/und/[qk]_norm/.*', 5.0),
    (r'mot/(layers/und|und_norm)/.*', 1.0),
  )
  config.objective = {'ntp_weight': 1.0}
  config.steps = 2400
  config.optimizer = 'muon'
  config.learning_rate = 1.5e-3
  config.warmup = 200
  config.decay = 'cosine'
  config.b1, config.b2, config.eps = 0.9, 0.95, 1e-8
  config.ema = 0.0

  config.sampling.points = 2
  config.sampling.shift = 1.0
  config.sampling.guidance.update(text=1.0, image=1.0, renorm='global')

  config.val_every = 500
  config.checkpoint_every = 1000
  config.val_batches = 8
  return config
