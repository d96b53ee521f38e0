"""Runs commands of the library in processes of their own, for their memory."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from typing import NamedTuple

# VmHWM is the peak of this process alone; rusage remembers its parent's.
_CHILD = """
import importlib, re, sys
from pathlib import Path

def peak():
  text = Path('/proc/self/status').read_text()
  return int(re.search(r'VmHWM:\\s+(\\d+)', text)[1]) * 1024

from synermedgen_jax.config.command_line import run_command
command = importlib.import_module('synermedgen_jax.' + sys.argv.pop(1))
before = peak()
def main():
  command.main()
  print('PEAK', before, peak())
run_command(main)
"""


class Cost(NamedTuple):
  """What a process took.

  Attributes:
    imported: peak resident bytes after all imports.
    peak: peak resident bytes at the end.
    seconds: elapsed time, from the start of the interpreter to its end.
    cpu_seconds: CPU time of all its threads.
  """

  imported: int
  peak: int
  seconds: float
  cpu_seconds: float


def cost(command: str, *arguments: str) -> Cost:
  """Runs `python -m synermedgen_jax.COMMAND ARGUMENTS`; Linux only.

  Raises:
    CalledProcessError: the command fails; its messages are on stderr.
  """
  start, busy = time.perf_counter(), _cpu_seconds()
  child = subprocess.run(
    [sys.executable, '-c', _CHILD, command, *arguments],
    stdout=subprocess.PIPE,
    text=True,
    check=True,
  )
  seconds = time.perf_counter() - start
  imported, peak = map(int, child.stdout.split('PEAK')[1].split())
  return Cost(imported, peak, seconds, _cpu_seconds() - busy)


def _cpu_seconds() -> float:
  """CPU seconds of all child processes so far."""
  usage = resource.getrusage(resource.RUSAGE_CHILDREN)
  return usage.ru_utime + usage.ru_stime
