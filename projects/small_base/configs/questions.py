"""The base learns to answer questions about views and styles.

  python -m synermedgen_jax.main \\
      --config=projects/small_base/configs/questions.py \\
      --config.init_from=RUN/views --workdir=RUN/questions

Adds the task `style` to the task `view` of `views.py`. The task `change`
follows later (`changes.py`): a task at chance would undo tasks that are being
learned.
small: 15 minutes on two CPU cores. Result to expect on validation scenes: view
0.73 (chance 0.25), style 0.81 (all four panels). Time and result are those of
one run of 2,400 steps, the first 600 of which asked `view` alone; not run as
two runs.
"""

from ml_collections import ConfigDict

from projects.small_base.configs import views


def get_config() -> ConfigDict:
  config = views.get_config()
  config.tasks = {'view': 0.5, 'style': 0.5}
  config.steps = 1800
  config.warmup = 20
  config.decay = 'cosine'
  return config
