"""What launch/prepare_array.sh calls, as a job of a Slurm array."""

import pytest
from launch_fakes import Stage, assert_refused

FLAGS = ('--dataset=folder', '--root=DIR', '--store=gs://bucket/store')
JOB = {'SLURM_ARRAY_TASK_ID': '3', 'SLURM_CPUS_PER_TASK': '8'}
COMMAND = (
  'python -m synermedgen_jax.prepare --part=3/16 --workers=8 '
  '--dataset=folder --root=DIR --store=gs://bucket/store'
)
SCRIPT = 'launch/prepare_array.sh'


@pytest.fixture
def node(tmp_path):
  """An environment that is set up, with a fake Python in it."""
  stage = Stage(tmp_path)
  (stage.root / 'requirements.txt').write_text('jax\n')
  stage.fake('../repository/.venv/bin/python')
  stamp = stage.root / '.venv' / 'requirements.txt.installed'
  stamp.write_text('jax\n' * 2)
  return stage


def test_a_job_writes_the_part_of_its_number(node):
  done = node.run(SCRIPT, '--dry_run', '--parts=16', '--', *FLAGS, **JOB)
  assert done.returncode == 0, done.stderr
  assert done.stdout.splitlines() == [COMMAND]
  done = node.run(SCRIPT, '--parts=16', '--', *FLAGS, **JOB)
  assert done.returncode == 0, done.stderr
  assert COMMAND in node.calls()


@pytest.mark.parametrize(
  ('words', 'job', 'message'),
  [
    (['--', *FLAGS], JOB, '--parts=N is missing'),
    (['--parts=x', '--', *FLAGS], JOB, '--parts=N is missing'),
    (['--parts=16', *FLAGS], JOB, 'options of prepare follow --'),
    (['--parts=16', '--', *FLAGS], {}, 'sbatch --array=1-16'),
    (['--parts=2', '--', *FLAGS], JOB, 'needs --array=1-2'),
  ],
)
def test_jobs_that_would_miss_a_part_are_refused(node, words, job, message):
  assert_refused(node.run(SCRIPT, *words, **job), message)
