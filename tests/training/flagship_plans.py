"""Builds configs on fake devices; prints the results as JSON.

Run in a process of its own, with the cases as JSON on stdin: name ->
{'arguments': of a train command, 'devices': numbers of devices}. Nothing is
read: whatever a run would start from, its store and its tokenizer are left out.
"""

import json
import math
import sys

import jax
from ml_collections import ConfigDict

sys.path.insert(0, '.')
sys.path.insert(0, 'tests')

from doc_commands import parse_config

from synermedgen_jax.input.mixture import Mixture
from synermedgen_jax.planning.rows import sample_rows
from synermedgen_jax.tasks.prompts import PROMPTS
from synermedgen_jax.tasks.registry import TASKS
from synermedgen_jax.training.build import build
from synermedgen_jax.training.config_checks import local_streams


def read_config(arguments):
  """The config of a train command, less what it would read from disk."""
  config = parse_config(arguments)
  if config.model == 'init_from':
    config.model = 'bagel_7b'
  config.init_from = config.store = config.tokenizer = ''
  return config


def plan(run) -> dict:
  params = run.state.trainable | run.state.frozen
  local_streams(ConfigDict(run.config), run.mesh)  # refuses what does not fit
  return {
    'mesh': dict(run.mesh.shape),
    'rows': run.rows,
    'streams': run.config['streams'],
    'trainable': sum(x.size for x in run.state.trainable.values()),
    'parts': max(
      x.size // math.prod(x.sharding.shard_shape(x.shape))
      for x in params.values()
    ),
  }


def fill(run, tasks) -> float:
  """Share of a row's und and gen tokens that examples use."""
  batch = sample_rows(
    Mixture(tasks, PROMPTS[run.config['prompts']]),
    run.tokenizer,
    run.geometry,
    run.capacity,
    rows=1,
  )
  streams = (batch.und.example_ids, batch.gen.example_ids)
  return sum(int((x > 0).sum()) for x in streams) / sum(x.size for x in streams)


def main() -> None:
  cases = json.load(sys.stdin)
  most = max(max(case['devices']) for case in cases.values())
  jax.config.update('jax_platforms', 'cpu')
  jax.config.update('jax_num_cpu_devices', most)
  plans, fills, planned = {}, {}, {}
  for name, case in cases.items():
    config = read_config(case['arguments'])
    # Commands that differ in paths alone have one plan.
    key = (config.to_json(), *case['devices'])
    if key in planned:
      plans[name] = planned[key]
      continue
    of_case = plans[name] = planned[key] = {}
    for count in case['devices']:
      config = read_config(case['arguments'])
      try:
        run = build(config, devices=jax.devices()[:count], data=False)
        of_case[str(count)] = plan(run)
      except ValueError as error:
        of_case[str(count)] = {'error': str(error)}
        break
    else:
      # Tasks that are read from files have examples of any size.
      tasks = {
        t: share
        for t, share in run.config['tasks'].items()
        if share > 0 and TASKS[t].build
      }
      key = (tuple(tasks.items()), run.geometry, run.capacity)
      if key not in fills:  # packing takes seconds
        fills[key] = fill_of_each(run, tasks)
      of_case['tasks'], of_case['fill'] = fills[key]
  print(json.dumps(plans))


def fill_of_each(run, tasks) -> tuple[dict, float]:
  """The fill of rows of one task each, and of rows of all."""
  if not tasks:
    return {}, 0.0
  try:
    return {t: fill(run, {t: 1.0}) for t in tasks}, fill(run, tasks)
  except ValueError as error:
    return {'error': str(error)}, 0.0


if __name__ == '__main__':
  main()
