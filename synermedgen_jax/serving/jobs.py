"""A queue of jobs, and the one thread that runs them.

The thread owns the model: JAX compiles and computes there, one job at a time,
in the order in which they came.
"""

from __future__ import annotations

import collections
import dataclasses
import secrets
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, Literal

from synermedgen_jax.config.failures import describe
from synermedgen_jax.core.errors import UserError

State = Literal['queued', 'running', 'done', 'failed', 'stopped']
_FINISHED = ('done', 'failed', 'stopped')
_MOST_UNFINISHED = 8  # of one owner
_KEPT = 32  # finished jobs of one owner


class QueueError(UserError):
  """A job that is not accepted; one line."""


class Stopped(Exception):
  """Raised in a job that was stopped, where it reports progress."""


@dataclasses.dataclass(eq=False)
class Job:
  """Work for the thread.

  Attributes:
    owner: the session.
    kind: such as 'translate'.
    run: gets the job, to report progress; returns JSON values.
    state: where it is.
    finished, total: progress, in slices; total 0 = not known yet.
    result: returned by `run`, if the state is 'done'.
    error: one line, if the state is 'failed'.
  """

  owner: str
  kind: str
  run: Callable[[Job], dict[str, Any]]
  id: str = dataclasses.field(default_factory=lambda: secrets.token_urlsafe(16))
  state: State = 'queued'
  finished: int = 0
  total: int = 0
  result: dict[str, Any] | None = None
  error: str = ''
  _stop: threading.Event = dataclasses.field(default_factory=threading.Event)

  def advance(self, count: int = 0) -> None:
    """Reports finished slices; raises `Stopped` if the job is to end."""
    if self._stop.is_set():
      raise Stopped
    self.finished += count

  def stop(self) -> None:
    """Ends the job where it reports progress next."""
    self._stop.set()


class Jobs:
  """The queue and its thread, which starts with the first job."""

  def __init__(self):
    self._changed = threading.Condition()
    self._queue: collections.deque[Job] = collections.deque()
    self._running: Job | None = None
    self._known: dict[str, list[Job]] = {}  # owner -> its jobs, oldest first
    self._afterwards: dict[str, Callable[[], None]] = {}
    self._thread: threading.Thread | None = None
    self._ending = False
    self._warm: set[str] = set()  # kinds that have been compiled

  def submit(
    self, owner: str, kind: str, run: Callable[[Job], dict[str, Any]]
  ) -> Job:
    """Adds a job to the queue.

    Raises:
      QueueError: the owner has eight unfinished jobs, or the queue has ended.
    """
    with self._changed:
      known = self._known.setdefault(owner, [])
      if sum(j.state not in _FINISHED for j in known) >= _MOST_UNFINISHED:
        raise QueueError(
          f'{_MOST_UNFINISHED} jobs of this browser are not finished; wait for '
          'one of them.'
        )
      if self._ending:
        raise QueueError('The app is ending.')
      job = Job(owner, kind, run)
      finished = [j for j in known if j.state in _FINISHED]
      for old in finished[:-_KEPT]:
        known.remove(old)
      known.append(job)
      self._queue.append(job)
      if self._thread is None:
        self._thread = threading.Thread(
          target=self._work, name='model', daemon=True
        )
        self._thread.start()
      self._changed.notify_all()
    return job

  def states(self, owner: str) -> dict[str, dict[str, Any]]:
    """Id -> state of the owner's jobs, as JSON values.

    'ahead' is the number of jobs that run or wait before a queued one, 'cold'
    whether no job of its kind is done yet, so that programs are compiled.
    """
    with self._changed:
      places = {job.id: i for i, job in enumerate(self._queue)}
      running = self._running is not None
      return {
        job.id: {
          'kind': job.kind,
          'state': job.state,
          'finished': job.finished,
          'total': job.total,
          'ahead': places.get(job.id, 0) + running,
          'cold': job.kind not in self._warm,
          'result': job.result,
          'error': job.error,
        }
        for job in self._known.get(owner, [])
      }

  def stop(self, owner: str, kind: str) -> None:
    """Ends the owner's jobs of a kind."""
    with self._changed:
      for job in self._known.get(owner, []):
        if job.kind == kind and job.state not in _FINISHED:
          self._end(job)
      self._changed.notify_all()

  def drop(self, owner: str, afterwards: Callable[[], None]) -> None:
    """Ends and forgets all jobs of an owner.

    Args:
      owner: the owner.
      afterwards: called once none of the jobs runs: now, or in the thread.
    """
    with self._changed:
      for job in self._known.pop(owner, []):
        self._end(job)
      waits = self._running is not None and self._running.owner == owner
      if waits:
        self._afterwards[owner] = afterwards
      self._changed.notify_all()
    if not waits:
      afterwards()

  def close(self, patience: float = 10.0) -> None:
    """Ends all jobs and the thread, for which it waits some seconds."""
    with self._changed:
      self._ending = True
      for jobs in self._known.values():
        for job in jobs:
          self._end(job)
      if self._running:
        self._running.stop()
      self._changed.notify_all()
    if self._thread:
      self._thread.join(patience)

  def _end(self, job: Job) -> None:
    job.stop()
    if job in self._queue:
      self._queue.remove(job)
      job.state = 'stopped'

  def _work(self) -> None:
    while True:
      with self._changed:
        self._changed.wait_for(lambda: self._queue or self._ending)
        if self._ending:
          return
        job = self._running = self._queue.popleft()
        job.state = 'running'
      state = self._run(job)
      with self._changed:
        job.state, self._running = state, None
        if state == 'done':
          self._warm.add(job.kind)
        afterwards = self._afterwards.pop(job.owner, None)
      if afterwards:
        afterwards()

  def _run(self, job: Job) -> State:
    try:
      job.advance()
      job.result = job.run(job)
      job.advance()  # a result that nobody waits for is not kept
      return 'done'
    except Stopped:
      return 'stopped'
    except Exception as error:
      job.error = describe(error) or _bug(error)
      return 'failed'


def _bug(error: Exception) -> str:
  """Prints the traceback where the app was started; returns one line."""
  traceback.print_exception(error, file=sys.stderr)
  return (
    f'The app failed ({type(error).__name__}); the terminal in which it runs '
    'shows the traceback.'
  )
