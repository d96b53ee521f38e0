"""Prints the number of steps of every arm's config at equal compute.

  python -m projects.ablations.ablation_steps --init_from=weights/small \\
      [--stage1_steps=1600] [--stage2_steps=2500] [--config.KEY=VALUE ...]

Every arm gets the operations of Stage I + II. A config that starts from the
base has all of them, a Stage II that starts from a Stage I those of Stage II.
Options of the form --config.KEY=VALUE apply to all configs. Prints a line
`NAME STEPS` per config, and the operations of its step to stderr.
"""

import ast
import importlib
import pkgutil
import sys

from absl import app, flags, logging

from projects.ablations import configs
from projects.ablations.equal_compute import step_operations, steps_for
from synermedgen_jax.checkpoint.orbax_items import CheckpointError
from synermedgen_jax.config.errors import ConfigError

_INIT_FROM = flags.DEFINE_string(
  'init_from', None, 'Weights folder or workdir of the base.', required=True
)
_MODEL = flags.DEFINE_string('model', 'small', 'Model of all configs.')
_STAGE1 = flags.DEFINE_integer(
  'stage1_steps', 0, "Steps of Stage I; 0 = the config's own."
)
_STAGE2 = flags.DEFINE_integer(
  'stage2_steps', 0, "Steps of Stage II; 0 = the config's own."
)
# Keys that determine the operations of a step.
_COUNTS = ('stage', 'model', 'image', 'capacity', 'rows', 'trainable', 'ema')
# Configs that start from the base and get the operations of both stages.
_FROM_BASE = ('stage2_only', 'joint')


def _value(text: str):
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError):
    return text


def main(argv: list[str]) -> None:
  logging.set_verbosity(logging.WARNING)  # Orbax logs every file at INFO
  options = {}
  for option in argv[1:]:
    key, _, value = option.removeprefix('--config.').partition('=')
    options[key] = _value(value)
  costs, stages, steps, known = {}, {}, {}, {}
  for name in sorted(m.name for m in pkgutil.iter_modules(configs.__path__)):
    if name == 'base':
      continue
    module = importlib.import_module(f'{configs.__name__}.{name}')
    config = module.get_config()
    config.model = _MODEL.value
    config.init_from = _INIT_FROM.value
    try:
      config.update_from_flattened_dict(options)
      key = tuple(str(config[count]) for count in _COUNTS)
      if key not in known:
        known[key] = step_operations(config)
      costs[name] = known[key]
    except (ConfigError, CheckpointError, KeyError) as error:
      sys.exit(f'Error: {name}: {error}')
    stages[name], steps[name] = config.stage, config.steps
    gflops = costs[name] / 1e9
    print(f'{name}: {gflops:.3f} GFLOP a step', file=sys.stderr)
  first = costs['stage1'] * (_STAGE1.value or steps['stage1'])
  second = costs['stage2'] * (_STAGE2.value or steps['stage2'])
  for name, cost in costs.items():
    budget = first if stages[name] == 'gau' else second
    budget = first + second if name in _FROM_BASE else budget
    print(name, steps_for(budget, cost))


if __name__ == '__main__':
  app.run(main, flags_parser=lambda args: flags.FLAGS(args, known_only=True))
