"""Carries out the plan of the ablations (`plan.py`), and resumes it.

  python -m projects.ablations.run --output=runs/ablations --announce
  python -m projects.ablations.run --output=runs/ablations
  python -m projects.ablations.run --output=runs/ablations --results_only

Prints all trainings with their operations and the expected time first;
--announce ends there. Then trains and evaluates seed by seed, --at_a_time
processes in parallel, and writes RESULTS.md (`results.py`). Finished jobs are
reused if their command and all that they need are the same; a training with
another command or start is refused until its workdir is removed. --full tries
every arm in every regime.

OUTPUT holds the phantoms, the store, the workdirs trained/REGIME/SEED/ARM, and
the results of each cell in REGIME/SEED/ARM, as `compare` reads them.
"""

from __future__ import annotations

import glob
import os
import shutil
import signal
import sys
from pathlib import Path

from absl import flags

from projects.ablations.jobs import Job, JobError, run_jobs
from projects.ablations.plan import REGIMES, every_arm
from synermedgen_jax.config.command_line import UsageError, run_command

_OUTPUT = flags.DEFINE_string(
  'output', 'runs/ablations', 'Folder of all runs.', short_name='o'
)
_STORE = flags.DEFINE_string(
  'store', '', 'Slice store of the phantoms. Default: OUTPUT/store.'
)
_PHANTOMS = flags.DEFINE_string(
  'phantoms', '', 'Folder of the phantoms. Default: OUTPUT/phantoms.'
)
_PAGE = flags.DEFINE_string(
  'page', '', 'Page of results. Default: OUTPUT/RESULTS.md.'
)
_SEEDS = flags.DEFINE_list('seeds', ['0', '1', '2'], 'Random seeds.')
_REGIMES = flags.DEFINE_list(
  'regimes', [], 'Regimes to run. Default: all of the plan.'
)
_FULL = flags.DEFINE_bool('full', False, 'Try every arm in every regime.')
_SUBJECTS = flags.DEFINE_integer('subjects', 40, 'Phantoms per cohort.', 8)
_STAGE1 = flags.DEFINE_integer('stage1_steps', 600, 'Steps of Stage I.', 1)
_STAGE2 = flags.DEFINE_integer('stage2_steps', 500, 'Steps of Stage II.', 1)
_SLICES = flags.DEFINE_integer('slices', 3, 'Slices per held-out case.', 1)
_QUESTIONS = flags.DEFINE_integer('questions', 128, 'Questions per task.', 1)
_AT_A_TIME = flags.DEFINE_integer(
  'at_a_time',
  None,
  'Processes in parallel; if several, each has one core. Default: the number '
  'of cores, or 1 with an accelerator.',
  1,
)
_RATE = flags.DEFINE_float(
  'gflops',
  32.0,
  'Operations per second of one process, in units of 1e9, for the expected '
  'time.',
  0.1,
)
_EVALUATION = flags.DEFINE_float(
  'evaluation_minutes', 2.5, 'Minutes of an evaluation, for the same.', 0.0
)
_RESULTS_ONLY = flags.DEFINE_bool(
  'results_only', False, 'Write the page of the cells that are finished.'
)
_ANNOUNCE = flags.DEFINE_bool('announce', False, 'Print the costs and stop.')


def main() -> None:
  import jax

  from projects.ablations.cells import Settings, plan_jobs
  from projects.ablations.results import write_results

  if unknown := sorted({*_REGIMES.value} - REGIMES.keys()):
    raise UsageError(
      f'--regimes: unknown {", ".join(unknown)}; expected some of '
      f'{", ".join(REGIMES)}.'
    )
  if not _SEEDS.value or not all(s.isdecimal() for s in _SEEDS.value):
    raise UsageError(
      f'--seeds={",".join(_SEEDS.value)}: expected whole numbers from 0, such '
      'as 0,1,2.'
    )
  root = Path(_OUTPUT.value)
  regimes = {
    name: every_arm(name) if _FULL.value else regime.arms
    for name, regime in REGIMES.items()
    if not _REGIMES.value or name in _REGIMES.value
  }
  page = Path(_PAGE.value or root / 'RESULTS.md')
  if _RESULTS_ONLY.value:
    print(f'{write_results(root, page, regimes)}\n{page}')
    return
  settings = Settings(
    root=root,
    store=Path(_STORE.value or root / 'store'),
    phantoms=Path(_PHANTOMS.value or root / 'phantoms'),
    subjects=_SUBJECTS.value,
    stage1=_STAGE1.value,
    stage2=_STAGE2.value,
    slices=_SLICES.value,
    questions=_QUESTIONS.value,
  )
  jax.config.update('jax_platforms', 'cpu')  # an accelerator is for the jobs
  workers = _AT_A_TIME.value or _default_workers()
  jobs = plan_jobs(settings, regimes, _SEEDS.value)
  _announce(jobs, workers)
  if _ANNOUNCE.value:
    return
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
  try:
    run_jobs(jobs, root, workers)
  except JobError as error:
    sys.exit(f'Error: {error}')
  print(f'{write_results(root, page, regimes)}\n{page}')


def _default_workers() -> int:
  """The number of cores; one with an accelerator."""
  attached = shutil.which('nvidia-smi') or glob.glob('/dev/accel*')
  return 1 if attached else os.cpu_count() or 1


def _announce(jobs: list[Job], workers: int) -> None:
  """Prints a table of the trainings, and the expected time of all jobs."""
  trainings = [job for job in jobs if job.operations]
  print(f'{"training":44}{"steps":>7}{"TFLOP":>9}{"minutes":>9}')
  for job in trainings:
    minutes = job.operations / (_RATE.value * 60e9)
    print(
      f'{job.name:44}{job.steps:7}{job.operations / 1e12:9.2f}{minutes:9.1f}'
    )
  evaluations = sum(job.name.startswith('evaluate') for job in jobs)
  total = sum(job.operations for job in jobs)
  hours = total / (_RATE.value * 3600e9) + evaluations * _EVALUATION.value / 60
  print(
    f'{len(trainings)} trainings with {total / 1e12:.0f} TFLOP, {evaluations} '
    f'evaluations: about {hours / workers:.1f} hours, {workers} at a time, at '
    f'{_RATE.value:g} GFLOP/s each.',
    flush=True,
  )


if __name__ == '__main__':
  run_command(main)
