"""Joint training of the model `nano` with everything that `extension` adds."""

import nano


def get_config(model: str = 'nano'):
  config = nano.config('joint', '')
  config.model = model
  config.modules = ('extension',)
  config.stage = 'joint_l2'
  config.objective.term_weights = {'connector_l2': 0.01}
  config.tasks = {'same_place': 0.5, 'synthesis': 0.5}
  config.capacity = {'und': 256, 'gen': 8, 'vit': 20, 'images': 2}
  config.checkpoint_every = 2
  return config
