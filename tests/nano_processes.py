"""Runs of the train command as one or several processes of their own."""

import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import nano
import numpy as np
import orbax.checkpoint as ocp

from synermedgen_jax.checkpoint import orbax_items as ckpt

TESTS = Path(__file__).parent
ITEMS = ('params', 'ema', 'optimizer')
# Sums in another order would be other numbers.
ONE_THREAD = '--xla_cpu_multi_thread_eigen=false'


def flags_of(config, default) -> list[str]:
  """The keys in which a config differs, as flags."""
  found = []
  for key, value in config.items():
    if isinstance(value, dict):
      found += [
        flag.replace('--config.', f'--config.{key}.', 1)
        for flag in flags_of(value, default[key])
      ]
    elif value != default[key]:
      found.append(f'--config.{key}={value}')
  return found


@dataclasses.dataclass
class Job:
  """Joint training in a workdir, by some processes.

  Attributes:
    runs: the folder of `nano_runs`.
    workdir: of the job.
    programs: a folder of compiled programs.
    values: keys of the config.
  """

  runs: Path
  workdir: Path
  programs: Path
  values: dict

  def start(self, processes=1, devices=1, *, stage='joint', fails='', **values):
    """Starts as many processes, with so many devices each.

    Args:
      processes, devices: how many.
      stage: which config.
      fails: PROCESS:STEP that loses its store.
      **values: keys of the config.
    """
    values = {'rows': 8, 'streams': 4, **self.values, **values}
    config = nano.stage_config(stage, self.runs, **values).to_dict()
    command = [
      *(sys.executable, TESTS / 'nano_main.py'),
      f'--config={nano.CONFIGS / f"{stage}.py"}',
      *flags_of(config, nano.config_file(stage).to_dict()),
      f'--workdir={self.workdir}',
    ]
    port = _free_port()
    self.workdir.mkdir(parents=True, exist_ok=True)
    return [
      subprocess.Popen(
        [
          *command,
          *(
            (
              '--distributed',
              f'--coordinator=localhost:{port}',
              f'--processes={processes}',
              f'--process={index}',
            )
            if processes > 1
            else ()
          ),
        ],
        env=os.environ
        | {
          'JAX_PLATFORMS': 'cpu',
          'XLA_FLAGS': f'{os.environ.get("XLA_FLAGS", "")} {ONE_THREAD}',
          'NANO_DEVICES': str(devices),
          'NANO_FAILS': fails,
          'NANO_TRACE': str(self.workdir / f'trace_{index}.jsonl'),
          'JAX_COMPILATION_CACHE_DIR': str(self.programs),
          'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
          'PYTHONPATH': os.pathsep.join([str(TESTS.parent), str(TESTS)]),
        },
        stdout=(self.workdir / f'log_{index}').open('a'),
        stderr=subprocess.STDOUT,
      )
      for index in range(processes)
    ]

  def run(self, processes=1, devices=1, **values) -> None:
    """To its end, which has to be a good one."""
    started = self.start(processes, devices, **values)
    codes = ended(started)
    assert codes == [0] * processes, self.log()

  def log(self, index=0) -> str:
    return (self.workdir / f'log_{index}').read_text()

  def losses(self) -> dict[int, float]:
    lines = (self.workdir / 'metrics.jsonl').read_text().splitlines()
    return {row['step']: row['loss'] for row in map(json.loads, lines)}

  def examples(self) -> dict[int, list[list[int]]]:
    """By step, the numbers of the examples in every row, as last trained."""
    found = {}
    for path in sorted(self.workdir.glob('trace_*.jsonl')):
      told = {}
      for line in path.read_text().splitlines():
        with contextlib.suppress(ValueError):  # cut off by a kill
          row = json.loads(line)
          told[row['step']] = row['rows']
      for step, rows in told.items():
        found[step] = found.get(step, []) + rows
    return found

  def saved(self, step: int) -> dict[str, np.ndarray]:
    """All arrays of a checkpoint, by item and name."""
    checkpoints = ckpt.manager(self.workdir / 'checkpoints')
    metadata = checkpoints.item_metadata(step)
    read = checkpoints.restore(
      step,
      args=ocp.args.Composite(
        **{
          item: ocp.args.StandardRestore(
            jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), metadata[item])
          )
          for item in ITEMS
        }
      ),
    )
    checkpoints.close()
    return {
      item + jax.tree_util.keystr(path): leaf
      for item in ITEMS
      for path, leaf in jax.tree_util.tree_leaves_with_path(read[item])
    }


def ended(processes, timeout=300) -> list[int]:
  """Their exit statuses; none outlives the test."""
  try:
    return [process.wait(timeout) for process in processes]
  finally:
    kill(processes)


def kill(processes) -> None:
  for process in processes:
    if process.poll() is None:
      process.send_signal(signal.SIGKILL)
  for process in processes:
    process.wait()


def wait_until(happened, processes=(), seconds=120) -> bool:
  """Waits for something; False where the processes all ended before."""
  deadline = time.monotonic() + seconds
  while not happened():
    if processes and all(p.poll() is not None for p in processes):
      return False
    assert time.monotonic() < deadline, 'It did not happen.'
    time.sleep(0.002)
  return True


def _free_port() -> int:
  with socket.socket() as found:
    found.bind(('localhost', 0))
    return found.getsockname()[1]
