"""Jobs in worker processes: every failure is one line that names the jobs."""

import concurrent.futures
import contextlib
import os
import signal

import numpy as np
import pytest

from synermedgen_jax.core.errors import UserError
from synermedgen_jax.slices import workers


def square(number):
  return number**2


def ask_too_much(number):
  return np.empty((number, 2**50))


def end(number):
  del number
  os.kill(os.getpid(), signal.SIGKILL)


def run(function, count=3, processes=2):
  jobs = [(f'case{i}', (i + 1,)) for i in range(count)]
  with contextlib.closing(
    workers.run_jobs(function, jobs, processes)
  ) as results:
    return dict(results)


@pytest.fixture
def threads(monkeypatch):
  monkeypatch.setattr(
    concurrent.futures,
    'ProcessPoolExecutor',
    lambda count, *_, **__: concurrent.futures.ThreadPoolExecutor(count),
  )


def test_results_have_the_names_of_their_jobs(threads):
  assert run(square) == {'case0': 1, 'case1': 4, 'case2': 9}
  assert run(square, count=0) == {}


def test_a_case_without_memory_is_named_with_the_bytes(threads):
  with pytest.raises(
    UserError, match=r'case0: out of memory \(Unable to al'
  ) as e:
    run(ask_too_much, count=1)
  assert str(e.value).endswith('run the same command again with --workers=1.')


def test_a_worker_that_is_killed_names_the_cases_that_ran():
  with pytest.raises(UserError) as error:
    run(end, processes=2)
  text = str(error.value)
  assert text.startswith('a worker process was ended while it worked on case')
  assert text.endswith(
    'memory ran out; run the same command again with --workers=1.'
  )


def test_a_process_that_cannot_start_is_reported(threads, monkeypatch):
  def refuse(*_):
    raise OSError(11, 'Resource temporarily unavailable')

  monkeypatch.setattr(concurrent.futures.ThreadPoolExecutor, 'submit', refuse)
  with pytest.raises(
    UserError, match=r'--workers=2: .* \(Resource temp.*fewer'
  ):
    run(square)
