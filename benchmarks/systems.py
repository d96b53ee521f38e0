"""Compares training steps of systems of the arena with PyTorch, in one run.

  python -m benchmarks.systems
  python -m benchmarks.systems --systems=pix2pix --rounds=5 --compile

Both sides have the networks, the batch and the constants of
`configs/small/SYSTEM.py`, the same initial parameters and the same cores.
Batches stay in memory: reading is not timed. `benchmarks.torch_rival.systems`
describes the rival. The sides run in turn, each in a process of its own,
`--rounds` times. The printed ratio is the median over rounds of the rival's
time divided by ours, so that more is faster. Time is CPU time, on which other
processes of the machine have less influence; elapsed time is printed next to
it.

Our step is that of the training loop, which also takes norms of the gradients
and leaves out updates that are not finite. The rival does neither. Its idle
threads sleep (OMP_WAIT_POLICY): on cores that others use too, waiting in a loop
can cost it a multiple of its work.
"""

import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
from absl import app, flags
from ml_collections import ConfigDict

from benchmarks import jax_device
from benchmarks.measuring import Seconds, append_record
from synermedgen_jax.baselines.pair_data import PairBatch
from synermedgen_jax.baselines.registry import make_system
from synermedgen_jax.core.modalities import ROUTES
from synermedgen_jax.core.sharding import make_mesh
from synermedgen_jax.training import build_system  # registers the objectives
from synermedgen_jax.training.loop import StepConfig, make_train_step
from synermedgen_jax.training.objectives import ObjectiveConfig
from synermedgen_jax.training.settings import optimiser
from synermedgen_jax.training.train_state import create_state

del build_system

_SYSTEMS = flags.DEFINE_list('systems', ['unet', 'pix2pix'], 'To compare.')
_ROUNDS = flags.DEFINE_integer('rounds', 3, 'Runs of each side.')
_STEPS = flags.DEFINE_integer('steps', 10, 'Timed steps of a run.')
_THREADS = flags.DEFINE_integer('threads', 2, 'Cores of each side.')
_COMPILE = flags.DEFINE_bool('compile', False, "torch.compile the rival's.")
_SIDE = flags.DEFINE_enum(
  'side', 'both', ['both', 'jax', 'torch'], 'Measure one side in this process.'
)
_OUTPUT = flags.DEFINE_string(
  'output', '', 'File to append one JSON object per run to.'
)
_WARMUPS = 3  # steps


def _config(name: str) -> ConfigDict:
  config = importlib.import_module(f'configs.small.{name}').get_config()
  ends = {m.value for route in ROUTES for m in (route.source, route.target)}
  config.modalities = tuple(sorted(ends))
  return config


def _batch(config: ConfigDict) -> PairBatch:
  """Random images and modalities, the same in every process."""
  rng = np.random.default_rng(0)
  shape = (2, config.rows, *config.size, 1)
  source, target = rng.uniform(-1, 1, shape).astype(np.float32)
  ids = rng.integers(len(config.modalities), size=(2, config.rows))
  return PairBatch(source, target, *ids.astype(np.int32))


def _ours(name: str) -> tuple[Seconds, dict[str, float]]:
  """Times of a step, and the terms of the loss in the first one."""
  config = _config(name)
  system = make_system(config)
  scales, tx = optimiser(config, system)
  mesh = make_mesh((-1, 1, 1))
  state, _ = create_state(system, scales, tx, mesh, seed=config.seed, ema=False)
  settings = StepConfig(
    stage=name,
    objective=ObjectiveConfig(term_weights=system.weights),
    seed=config.seed,
  )
  step = jax.jit(make_train_step(system, tx, settings), donate_argnums=0)
  batch = jax.device_put(_batch(config))

  def update():
    nonlocal state
    state, terms = step(state, batch)
    return terms

  first = jax.device_get(update())
  times = jax_device.seconds(update, repeats=_STEPS.value, warmups=_WARMUPS)
  means = {
    term: float(first[term][0] / first[term][1])
    for term in system.weights
    if term in first
  }
  return times, means


def _theirs(name: str) -> tuple[Seconds, dict[str, float]]:
  """The same of the rival."""
  import torch

  from benchmarks.torch_rival import records, systems

  torch.set_num_threads(_THREADS.value)
  torch.manual_seed(0)
  config = _config(name)
  ours = make_system(config)
  system = systems.SYSTEMS[name](ours.config)
  params = ours.initial_params(jax.random.key(config.seed))
  systems.load_jax_params(system, params)
  if _COMPILE.value:
    for network in system.children():
      network.compile()
  trainer = systems.Trainer(system, config)
  batch = systems.prepare(_batch(config), len(config.modalities))
  first = trainer.step(batch)
  times = records.seconds(
    lambda: trainer.step(batch),
    torch.device('cpu'),
    repeats=_STEPS.value,
    warmups=_WARMUPS,
  )
  return times, {term: value.item() for term, value in first.items()}


def _measure(name: str) -> None:
  """Writes the record of one side, on the first cores it may use."""
  cores = sorted(os.sched_getaffinity(0))[: _THREADS.value]
  os.sched_setaffinity(0, cores)
  times, terms = _ours(name) if _SIDE.value == 'jax' else _theirs(name)
  config = _config(name)
  append_record(
    _OUTPUT.value,
    {
      'benchmark': 'system_step',
      'implementation': _SIDE.value + '_compiled' * _COMPILE.value,
      'system': name,
      'model': config.model,
      'dtype': 'float32',
      'shapes': {'rows': config.rows, 'size': list(config.size)},
      'threads': len(cores),
      'seconds': times.wall,
      'cpu_seconds': times.cpu,
      'first_terms': terms,
    },
  )


def _run(name: str, side: str) -> dict:
  """The record of one side, from a process of its own."""
  with tempfile.TemporaryDirectory() as folder:
    output = Path(folder, 'record.jsonl')
    compiled = _COMPILE.value and side == 'torch'
    command = [
      *(sys.executable, '-m', 'benchmarks.systems', f'--systems={name}'),
      *(f'--side={side}', f'--steps={_STEPS.value}'),
      *(f'--threads={_THREADS.value}', f'--compile={compiled}'),
      f'--output={output}',
    ]
    done = subprocess.run(
      command,
      # Before PyTorch is loaded.
      env={**os.environ, 'JAX_PLATFORMS': 'cpu', 'OMP_WAIT_POLICY': 'PASSIVE'},
      capture_output=True,
      text=True,
      check=False,
    )
    if done.returncode:
      lines = done.stderr.strip().splitlines() or ['no message']
      raise SystemExit(f'Error: {" ".join(command)}: {lines[-1]}')
    record = json.loads(output.read_text())
  append_record(_OUTPUT.value, record)
  return record


def main(_) -> None:
  if _SIDE.value != 'both':
    (name,) = _SYSTEMS.value
    _measure(name)
    return
  print(
    f'{"":<10} {"CPU seconds a step":^26} {"elapsed":^26}\n'
    f'{"system":<10} '
    + ' '.join(2 * [f'{"ours":>8} {"torch":>8} {"faster":>8}'])
  )
  for name in _SYSTEMS.value:
    pairs = [
      (_run(name, 'jax'), _run(name, 'torch')) for _ in range(_ROUNDS.value)
    ]
    columns = []
    for key in ('cpu_seconds', 'seconds'):
      ours, theirs = (
        statistics.median(pair[side][key] for pair in pairs) for side in (0, 1)
      )
      faster = statistics.median(b[key] / a[key] for a, b in pairs)
      columns.append(f'{ours:8.3f} {theirs:8.3f} {faster:7.2f}x')
    print(f'{name:<10} {" ".join(columns)}', flush=True)


if __name__ == '__main__':
  app.run(main)
