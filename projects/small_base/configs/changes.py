"""The base learns to name the change between two pictures.

  python -m synermedgen_jax.main \\
      --config=projects/small_base/configs/changes.py \\
      --config.init_from=RUN/questions --workdir=RUN/changes

`change` has the format of TIA and stays at chance for a long time. So it has
most of the questions, once `view` and `style` are learned well enough to
remain. Its accuracy starts to rise when the learning rate has almost decayed;
`changes_again.py` raises the rate again.
small: 26 minutes on two CPU cores. Result to expect in training: change 0.43,
style 0.71 (all four panels), view 0.74.
"""

from ml_collections import ConfigDict

from projects.small_base.configs import questions


def get_config() -> ConfigDict:
  config = questions.get_config()
  config.tasks = {'view': 0.2, 'style': 0.1, 'change': 0.7}
  config.steps = 4000
  config.learning_rate = 1.2e-3
  config.warmup = 50
  return config
