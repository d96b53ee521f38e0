"""The small base: pretraining on drawn scenes, questions and pictures in one.

  python -m synermedgen_jax.main --config=configs/base.py:small \\
      --config.init_from=RUN/base_pictures --workdir=RUN/base

Goes on from what the configs base_*.py bring one by one, and makes the weights
that ship; the `gen` expert alone learns on (configs/base_pictures_more.py).
Nothing medical goes in: scenes of solids, in rendering styles
(synermedgen_jax/scenes). Conditions of synthesis are left out at times, so that
guidance works.
small: 5 minutes on two shared CPU cores. Result to expect in training: view
0.71, style 0.68 (all four panels), change 0.90; flow loss on validation scenes
0.47.
"""

from ml_collections import ConfigDict

from synermedgen_jax.training.defaults import default_config


def get_config(model: str = 'small') -> ConfigDict:
  config = default_config()
  config.stage = 'joint'
  config.model = model

  config.tasks = {
    'view': 0.3,
    'style': 0.1,
    'change': 0.15,
    'redraw': 0.4,
    'copy': 0.05,
  }
  config.scenes = {'levels': (0.1, 0.25, 0.25, 0.4)}
  # Two pictures to make and two or three questions a row.
  config.capacity = {'und': 192, 'gen': 256, 'vit': 56, 'images': 4}
  config.rows = 2
  config.streams = config.reader_threads = 1
  config.dropout = {'text': 0.1, 'vae': 0.1, 'vit': 0.1}

  config.trainable = (
    (r'autoencoder/.*', 0.0),
    (r'(vit|latent)_pos_embed', 0.0),
    # Four pictures a step: larger steps undo what was learned of drawing.
    (r'(vae2llm|llm2vae|time_embedder)/.*', 1.0),
    (r'mot/(layers/gen|gen_norm)/.*', 1.0),
    # What compares is there: the flow's gradients would undo it at full rate.
    (r'.*', 0.2),
  )
  config.objective = {
    'ntp_weight': 1.0,
    'flow_weight': 1.0,
    'train_shift': 4.0,
  }
  config.sampling = {
    'points': 2,
    'shift': 1.0,
    'guidance': {
      'text': 1.0,
      'image': 1.0,
      'interval': (0.0, 1.0),
      'renorm': 'global',
      'renorm_min': 0.0,
    },
  }
  config.steps = 450
  config.learning_rate = 1e-3
  config.warmup = 50
  config.ema = 0.99

  config.val_every = 150
  config.val_batches = 8
  return config
