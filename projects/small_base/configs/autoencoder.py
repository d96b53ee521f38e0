"""The base's autoencoder: configs/tiny/autoencoder.py on drawn scenes.

  python -m synermedgen_jax.main \\
      --config=projects/small_base/configs/autoencoder.py \\
      --config.init_from=RUN/start --workdir=RUN/autoencoder

small: 7 minutes on one fast CPU core. Result to expect on validation scenes: L1
0.034 (values span 2). RUN/start is written by `projects.small_base.start`.
"""

from ml_collections import ConfigDict

from configs.tiny import autoencoder


def get_config() -> ConfigDict:
  config = autoencoder.get_config()
  config.model = 'small'
  config.compute.unroll = 5
  config.modules = ('projects.small_base.tasks',)
  config.tasks = {'picture': 1.0}
  config.steps = 16000
  config.checkpoint_every = 4000
  return config
