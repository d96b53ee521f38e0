"""Runs the train command in one or several processes."""

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
# Several threads would change the order of sums, and so the numbers.
ONE_THREAD = '--xla_cpu_multi_thread_eigen=false'


def flags_of(config, default) -> list[str]:
  """The keys in which a config differs, as flags."""
  options = []
  for key, value in config.items():
    if isinstance(value, dict):
      options += [
        flag.replace('--config.', f'--config.{key}.', 1)
        for flag in flags_of(value, default[key])
      ]
    elif value != default[key]:
      options.append(f'--config.{key}={value}')
  return options


@dataclasses.dataclass
class Job:
  """Joint training in a workdir, by some processes.

  Attributes:
    runs: the folder of `nano_runs`.
    workdir: workdir of the job.
    programs: a folder of compiled programs.
    values: keys of the config.
  """

  runs: Path
  workdir: Path
  programs: Path
  values: dict

  def start(self, processes=1, devices=1, *, stage='joint', fails='', **values):
    """Starts N processes.

    Args:
      processes: number of processes.
      devices: number of devices per process.
      stage: name of the config.
      fails: PROCESS:STEP at which a process loses its store.
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
    """Runs the job to its end; fails if a process fails."""
    started = self.start(processes, devices, **values)
    codes = ended(started)
    assert codes == [0] * processes, self.log()

  def log(self, index=0) -> str:
    return (self.workdir / f'log_{index}').read_text()

  def losses(self) -> dict[int, float]:
    lines = (self.workdir / 'metrics.jsonl').read_text().splitlines()
    return {row['step']: row['loss'] for row in map(json.loads, lines)}

  def examples(self) -> dict[int, list[list[int]]]:
    """Numbers of the examples in every row, by step, as last trained."""
    by_step = {}
    for path in sorted(self.workdir.glob('trace_*.jsonl')):
      described = {}
      for line in path.read_text().splitlines():
        with contextlib.suppress(ValueError):  # cut off by a kill
          row = json.loads(line)
          described[row['step']] = row['rows']
      for step, rows in described.items():
        by_step[step] = by_step.get(step, []) + rows
    return by_step

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
  """Waits for the processes, then kills those left; returns exit statuses."""
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
  """Waits for `happened()`; returns False if all processes end before."""
  deadline = time.monotonic() + seconds
  while not happened():
    if processes and all(p.poll() is not None for p in processes):
      return False
    assert time.monotonic() < deadline, 'It did not happen.'
    time.sleep(0.002)
  return True


def _free_port() -> int:
  with socket.socket() as listener:
    listener.bind(('localhost', 0))
    return listener.getsockname()[1]
