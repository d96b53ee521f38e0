"""The base's ViT: contrastive pretraining on views in two styles.

  python -m synermedgen_jax.main \\
      --config=projects/small_base/configs/vision.py \\
      --config.init_from=RUN/autoencoder --workdir=RUN/vision

It corresponds to the pretraining of SigLIP for BAGEL. Each row holds four views
of a scene in two styles; the loss separates every view from all others of the
batch. Contrast alone would make the ViT blind to style, so a second loss
requires that the frozen output layer predicts the style's word from each image.
Only ViT and connector train.
small: 25 minutes on two CPU cores. On validation scenes the other style of a
view is the nearest of 48 in 0.67 of the cases (four of the 48 are views of one
scene), and 0.95 of the styles are named correctly.
"""

from ml_collections import ConfigDict

from synermedgen_jax.config.defaults import default_config


def get_config() -> ConfigDict:
  config = default_config()
  config.stage = 'contrast'
  config.model = 'small'
  config.compute = {
    'dtype': 'float32',
    'remat': 'none',
    'attention': '',
    'unroll': 5,
  }
  config.tokenizer = 'project'
  config.prompts = 'short'

  config.modules = ('projects.small_base.tasks',)
  config.tasks = {'pairs': 1.0}
  config.image = {'vit_size': (64, 64), 'vae_size': (64, 64)}
  config.dropout = {'text': 0.0, 'vae': 0.0, 'vit': 0.0}
  config.mesh = (-1, 1, 1)
  config.capacity = {'und': 54, 'gen': 0, 'vit': 32, 'images': 0}
  config.rows = 12
  config.streams = config.reader_threads = 1
  config.packing_bins = 3

  config.trainable = (
    (r'(vit|connector)/.*', 1.0),
    (r'.*', 0.0),
  )
  config.steps = 6000
  config.optimizer = 'muon'
  config.learning_rate = 4e-3
  config.warmup = 100
  config.decay = 'cosine'
  config.b1, config.b2, config.eps = 0.9, 0.95, 1e-8
  config.ema = 0.0

  config.sampling.points = 2
  config.sampling.shift = 1.0
  config.sampling.guidance.update(text=1.0, image=1.0, renorm='global')

  config.log_every = 50
  config.val_every = 500
  config.val_batches = 8
  return config
