"""Commands that depend on each other, run once each, several at a time."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import (
  FIRST_COMPLETED,
  Future,
  ThreadPoolExecutor,
  wait,
)
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

  An exception, such as that of Ctrl-C, ends the running jobs; a training saves
  its last step.

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
  places, failed, done, count = list(range(workers)), None, 0, len(todo)
  running: dict[Future[tuple[int, float]], tuple[Job, int]] = {}
  pace = _Pace(workers)
  with ThreadPoolExecutor(workers) as pool, _Processes() as processes:
    while todo or running:
      busy = {*todo, *(job.name for job, _ in running.values())}
      ready = [j for j in todo.values() if busy.isdisjoint(j.needs)]
      while ready and places and not failed:
        job, place = todo.pop(ready.pop(0).name), places.pop(0)
        write_bytes(job.start(root), json.dumps(job.command).encode())
        work = pool.submit(_run, job, root, place, workers, processes)
        running[work] = job, place
      if not running:
        break
      for work in wait(running, return_when=FIRST_COMPLETED).done:
        job, place = running.pop(work)
        places.append(place)
        code, seconds = work.result()
        if code:
          failed = failed or job
          continue
        done += 1
        pace.add(job, seconds)
        write_bytes(job.stamp(root), json.dumps(job.command).encode())
        left = pace.hours([*todo.values(), *(j for j, _ in running.values())])
        say(f'{done}/{count} {job.name}, about {left:.1f} h left')
  if failed:
    raise JobError(f'{failed.name} failed; {_why(failed.log(root))}')


class _Pace:
  """Expects the time of jobs from the time of those that have ended.

  The time of a training is proportional to its operations; all other jobs take
  equally long.
  """

  def __init__(self, workers: int):
    self._workers = workers
    self._work: Counter[bool] = Counter()
    self._seconds: Counter[bool] = Counter()

  def add(self, job: Job, seconds: float) -> None:
    """Counts a job that has ended."""
    self._work[bool(job.operations)] += job.operations or 1
    self._seconds[bool(job.operations)] += seconds

  def hours(self, jobs: Iterable[Job]) -> float:
    """Hours until jobs have ended; without trainings before one has ended."""
    seconds = sum(
      (job.operations or 1) / self._work[kind] * self._seconds[kind]
      for job in jobs
      if (kind := bool(job.operations)) in self._work
    )
    return seconds / self._workers / 3600


class _Processes:
  """The processes of jobs, so that they end with this one."""

  def __init__(self):
    self._lock = threading.Lock()
    self._running: set[subprocess.Popen] = set()
    self._over = False

  def __enter__(self) -> _Processes:
    return self

  def __exit__(self, *_) -> None:
    """Asks the running ones to end; no other starts."""
    with self._lock:
      self._over = True
      for process in [*self._running]:
        process.terminate()

  def run(self, command: Sequence[str], **options) -> int:
    """Runs a command to its end; returns its exit status."""
    with self._lock:
      if self._over:
        return 1
      process = subprocess.Popen(command, **options)
      self._running.add(process)
    try:
      return process.wait()
    finally:
      self._running.discard(process)


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


def _run(
  job: Job, root: Path, place: int, workers: int, processes: _Processes
) -> tuple[int, float]:
  """Runs a job; returns its exit status and its time in s."""
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
    begun = time.monotonic()
    code = processes.run(
      command,
      env=environment,
      stdin=subprocess.DEVNULL,
      stdout=file,
      stderr=subprocess.STDOUT,
    )
  return code, time.monotonic() - begun


def _why(log: Path) -> str:
  lines = log.read_text('utf-8', errors='replace').strip().splitlines()
  return f'{log}: {lines[-1] if lines else "no output"}'
