"""Builds configs/*.py on fake devices; prints what came out as JSON.

Run in a process of its own: python flagship_plans.py DEVICES ...
"""

import dataclasses
import importlib
import json
import math
import sys

import jax

sys.path.insert(0, '.')

from synermedgen_jax.planning.rows import sample_rows_of
from synermedgen_jax.training.build import build


def plan(run) -> dict:
  params = run.state.trainable | run.state.frozen
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
  """Share of a row's und and gen tokens that examples of these tasks use."""
  run = dataclasses.replace(run, config={**run.config, 'tasks': tasks})
  batch = sample_rows_of(run, rows=1)
  streams = (batch.und.example_ids, batch.gen.example_ids)
  return sum(int((x > 0).sum()) for x in streams) / sum(x.size for x in streams)


def main() -> None:
  counts = list(map(int, sys.argv[1:]))
  jax.config.update('jax_platforms', 'cpu')
  jax.config.update('jax_num_cpu_devices', max(counts))
  found, fills = {}, {}
  for stage in ('autoencoder', 'stage1', 'stage2', 'joint'):
    for model in ('bagel_7b', 'base_1b'):
      config = importlib.import_module(f'configs.{stage}').get_config(model)
      of_case = found[f'{stage} {model}'] = {}
      for count in counts:
        run = build(config, devices=jax.devices()[:count], data=False)
        of_case[str(count)] = plan(run)
      tasks = {t: s for t, s in run.config['tasks'].items() if s > 0}
      key = (stage, run.geometry, run.capacity)
      if key not in fills:  # packing takes seconds
        fills[key] = {t: fill(run, {t: 1.0}) for t in tasks}, fill(run, tasks)
      of_case['tasks'], of_case['fill'] = fills[key]
  print(json.dumps(found))


if __name__ == '__main__':
  main()
