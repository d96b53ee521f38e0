"""Commands that depend on each other, run once each, several at a time."""

from __future__ import annotations

import dataclasses
import json
import os
import queue
import subprocess
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from synermedgen_jax.core.files import write_bytes
from synermedgen_jax.core.progress import say


class JobError(Exception):
  """A job failed or cannot start; one line that names it."""


@dataclasses.dataclass(frozen=True)
class Job:
  """A Python module to run with arguments.

  Attributes:
    name: unique; name of its log and of its stamp.
    module: the module.
    arguments: its arguments.
    needs: names of jobs that have to be finished before.
    steps: of a training.
    operations: floating-point operations of a training; 0 = none.
  """

  name: str
  module: str
  arguments: tuple[str, ...]
  needs: tuple[str, ...] = ()
  steps: int = 0
  operations: float = 0.0

  def stamp(self, root: Path) -> Path:
    """The file that holds the command once it has succeeded."""
    return root / 'done' / f'{self.name}.json'

  def start(self, root: Path) -> Path:
    """The file that holds the command once it has started."""
    return root / 'begun' / f'{self.name}.json'

  def log(self, root: Path) -> Path:
    return root / 'logs' / f'{self.name}.log'

  def is_done(self, root: Path) -> bool:
    """Whether the same command has succeeded before."""
    return _command_in(self.stamp(root)) == self.command

  @property
  def workdir(self) -> Path | None:
    """The folder of its --workdir; None without that flag."""
    flag = '--workdir='
    given = [a.removeprefix(flag) for a in self.arguments if a.startswith(flag)]
    return Path(given[0]) if given else None

  @property
  def command(self) -> list[str]:
    return [self.module, *self.arguments]


def run_jobs(jobs: Sequence[Job], root: Path, workers: int) -> None:
  """Runs jobs in their order, as soon as what they need is finished.

  Finished jobs are not run again, unless their command or a job that they need
  has changed.

  With several workers, each has a core of its own: processes that share all
  cores wait for one another's threads.

  Args:
    jobs: every job after those that it needs.
    root: folder of logs and stamps.
    workers: jobs at a time.

  Raises:
    JobError: a job failed; the running ones end first, and no other starts. Or
      a workdir holds a training by another command or from another start, which
      would be resumed; nothing is run.
  """
  todo = _unfinished(jobs, root)
  _refuse_other_trainings(todo.values(), root)
  for job in todo.values():  # an interruption must not leave an outdated stamp
    job.stamp(root).unlink(missing_ok=True)
  say(f'{len(jobs) - len(todo)} of {len(jobs)} jobs are done.')
  finished: queue.Queue[tuple[Job, int, int]] = queue.Queue()
  places, running, failed = list(range(workers)), set(), None
  done, begun, count = 0, time.monotonic(), len(todo)
  while todo or running:
    ready = [
      job
      for job in todo.values()
      if not any(n in todo or n in running for n in job.needs)
    ]
    while ready and places and not failed:
      job, place = ready.pop(0), places.pop(0)
      del todo[job.name]
      running.add(job.name)
      write_bytes(job.start(root), json.dumps(job.command).encode())
      threading.Thread(
        target=lambda job=job, place=place: finished.put(
          (job, place, _run(job, root, place, workers))
        )
      ).start()
    if not running:
      break
    job, place, code = finished.get()
    running.remove(job.name)
    places.append(place)
    if code:
      failed = failed or job
      continue
    done += 1
    write_bytes(job.stamp(root), json.dumps(job.command).encode())
    left = (time.monotonic() - begun) / done * (count - done) / 3600
    say(f'{done}/{count} {job.name}, about {left:.1f} h left')
  if failed:
    raise JobError(f'{failed.name} failed; {_why(failed.log(root))}')


def _unfinished(jobs: Sequence[Job], root: Path) -> dict[str, Job]:
  """The jobs to run by name: not done, or they need one of these."""
  todo: dict[str, Job] = {}
  for job in jobs:
    if not job.is_done(root) or any(need in todo for need in job.needs):
      todo[job.name] = job
  return todo


def _refuse_other_trainings(jobs: Iterable[Job], root: Path) -> None:
  """Raises JobError if a training would resume one that is not its own.

  A training that is done and yet to be run has another start than before.
  """
  other = [
    job
    for job in jobs
    if job.operations and job.workdir and job.workdir.exists()
    if job.is_done(root)
    or _command_in(job.start(root)) not in (None, job.command)
    or _command_in(job.stamp(root)) not in (None, job.command)
  ]
  if other:
    raise JobError(
      f'{other[0].name}: its command or its start has changed; remove '
      f'{", ".join(str(job.workdir) for job in other)}, or take another '
      '--output.'
    )


def _command_in(stamp: Path) -> list[str] | None:
  """The command in a file of `Job.stamp` or `Job.start`; None without one."""
  try:
    return json.loads(stamp.read_text('utf-8'))
  except (OSError, ValueError):
    return None


def _run(job: Job, root: Path, place: int, workers: int) -> int:
  """Runs a job; returns its exit status."""
  log = job.log(root)
  log.parent.mkdir(parents=True, exist_ok=True)
  environment = dict(os.environ)
  environment.setdefault('JAX_COMPILATION_CACHE_DIR', str(root / 'programs'))
  command = ['python', '-m', job.module, *job.arguments]
  if workers > 1:
    environment |= {'OMP_NUM_THREADS': '1', 'OPENBLAS_NUM_THREADS': '1'}
    environment['XLA_FLAGS'] = (
      environment.get('XLA_FLAGS', '') + ' --xla_cpu_multi_thread_eigen=false'
    ).strip()
    cores = sorted(os.sched_getaffinity(0))
    command = ['taskset', '-c', str(cores[place % len(cores)]), *command]
  with log.open('w') as file:
    return subprocess.run(
      command,
      env=environment,
      stdin=subprocess.DEVNULL,
      stdout=file,
      stderr=subprocess.STDOUT,
      check=False,
    ).returncode


def _why(log: Path) -> str:
  lines = log.read_text('utf-8', errors='replace').strip().splitlines()
  return f'{log}: {lines[-1] if lines else "no output"}'
