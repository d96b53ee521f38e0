"""The base learns to look: questions about drawn scenes, no synthesis yet.

  python -m synermedgen_jax.main \\
      --config=projects/small_base/configs/questions.py:small \\
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


def get_config(model: str = 'small') -> ConfigDict:
  config = default_config()
  config.stage = 'gau'
  config.model = model

  # What compares comes first: words would undo it.
  config.first_tasks = {'view': 1.0}
  config.first_examples = 9600
  config.tasks = {'view': 0.5, 'style': 0.5}
  # same, other_scenes, apart, neighbours: `scenes.questions.LEVELS`
  config.scenes = {'levels': (0.1, 0.3, 0.25, 0.35)}
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
  config.learning_rate = 1.5e-3
  config.warmup = 200
  config.b1, config.b2, config.eps = 0.9, 0.95, 1e-8

  config.val_every = 500
  config.checkpoint_every = 1000
  config.val_batches = 8
  return config
