"""Runs on disks that are full, read-only or removed."""

import contextlib
import json
import os
import pathlib
import resource
import shutil
import tempfile

import commands
import nano
import pytest
from commands import assert_refused
from nano_processes import Job, ended, flags_of

from synermedgen_jax.checkpoint import model as saved_model
from synermedgen_jax.checkpoint import orbax_items as ckpt
from synermedgen_jax.slices import store as stores
from synermedgen_jax.training import loop
from synermedgen_jax.training.metrics_log import (
  MetricsLog,
  StepLog,
  WriteError,
  write_atomically,
)

STEPS = {'steps': 8, 'log_every': 1, 'checkpoint_every': 2, 'val_every': 0}
pytestmark = pytest.mark.usefixtures('nano_preset', 'quick_compiles')


def main(runs, workdir, **values):
  """The command that trains Stage I of the model `nano`."""
  config = nano.stage_config('stage1', runs, **STEPS | values).to_dict()
  return commands.run(
    'main',
    f'--config={nano.CONFIGS / "stage1.py"}',
    *flags_of(config, nano.config_file('stage1').to_dict()),
    f'--workdir={workdir}',
  )


def error_line(result) -> str:
  code, _, err = result
  assert code == 1
  assert 'Traceback' not in err
  (line,) = [line for line in err.splitlines() if line.startswith('Error: ')]
  return line


def steps_saved(workdir) -> list[int]:
  """Steps of the checkpoints, all of which can be read."""
  checkpoints = ckpt.manager(workdir / 'checkpoints')
  steps = sorted(checkpoints.all_steps())
  checkpoints.close()
  for step in steps:
    saved_model.load_model(workdir / 'checkpoints', which=str(step))
  return steps


def test_a_workdir_that_cannot_be_created_is_named(nano_runs, tmp_path):
  (tmp_path / 'file').write_text('not a folder')
  result = main(nano_runs, tmp_path / 'file' / 'run')
  line = error_line(result)
  assert line == (
    f'Error: {tmp_path}/file/run/checkpoints: cannot be made (Not a directory);'
    ' name a place that can be written.'
  )


@contextlib.contextmanager
def read_only():
  """A folder that no user can write to, root included."""
  with tempfile.TemporaryDirectory() as folder:
    os.chmod(folder, 0o555)
    user = os.geteuid()
    if user == 0:
      os.seteuid(65534)  # to root nothing is read-only
    try:
      yield pathlib.Path(folder)
    finally:
      os.seteuid(user)
      os.chmod(folder, 0o755)


def test_a_read_only_workdir_is_named():
  with read_only() as folder:
    with pytest.raises(ckpt.CheckpointError) as unmade:
      ckpt.manager(folder / 'checkpoints', clean=True)
    with pytest.raises(WriteError) as unwritten:
      write_atomically(folder / 'config.json', '{}')
    with pytest.raises(WriteError) as unlogged:
      MetricsLog(folder, 0)
    assert list(folder.iterdir()) == []
  assert str(unmade.value) == (
    f'{folder}/checkpoints: cannot be made (Permission denied); name a place '
    'that can be written.'
  )
  cannot = 'cannot be written (Permission denied).'
  assert str(unwritten.value).startswith(f'{folder}/config.json: {cannot}')
  assert str(unlogged.value).startswith(f'{folder}/tensorboard: {cannot}')


def test_a_log_on_a_full_disk_is_named_and_the_run_resumes_later(tmp_path):
  log = StepLog(tmp_path / 'metrics.jsonl', 0)
  log.write(1, {'loss': 0.5})
  kept = (tmp_path / 'metrics.jsonl').rename(tmp_path / 'kept')
  (tmp_path / 'metrics.jsonl').symlink_to('/dev/full')
  with pytest.raises(WriteError) as error:
    log.write(2, {'loss': 0.25})
  assert str(error.value) == (
    f'{tmp_path}/metrics.jsonl: cannot be written (No space left on device). '
    'Free some space and run the same command again: it resumes from the '
    'newest checkpoint.'
  )
  kept.rename(tmp_path / 'metrics.jsonl')
  log = StepLog(tmp_path / 'metrics.jsonl', 1)
  log.write(2, {'loss': 0.25})
  lines = (tmp_path / 'metrics.jsonl').read_text().splitlines()
  assert [json.loads(line)['step'] for line in lines] == [1, 2]


def test_a_full_disk_while_saving_leaves_the_last_checkpoint(
  nano_runs, shared_path, tmp_path
):
  # Muon's state has the longest description: Orbax's log stays well below it.
  values = STEPS | {'keep': 9, 'optimizer': 'muon', 'rows': 8, 'streams': 4}
  workdir = tmp_path / 'run'
  assert main(nano_runs, workdir, **values | {'steps': 4})[0] == 0
  largest = max(
    path.stat().st_size
    for path in (workdir / 'checkpoints' / '4').rglob('*')
    if path.is_file()
  )
  job = Job(nano_runs, workdir, shared_path / 'programs_of_processes', values)
  (full,) = job.start(stage='stage1')
  # No file may be as large as the largest of a checkpoint has to be; the log,
  # with all that Orbax says, stays well below.
  limit = largest - 1
  resource.prlimit(full.pid, resource.RLIMIT_FSIZE, (limit, limit))
  assert ended([full]) == [1]
  log = job.log()
  assert f'Error: {workdir}/checkpoints: a checkpoint cannot be' in log
  assert 'step 4 is whole. Make room, and run the same command again.' in log
  assert steps_saved(workdir) == [2, 4]
  assert main(nano_runs, workdir, **values)[0] == 0
  assert steps_saved(workdir) == [2, 4, 6, 8]


def test_a_store_that_vanishes_is_named_and_the_last_checkpoint_is_whole(
  nano_runs, tmp_path, monkeypatch
):
  runs = shutil.copytree(nano_runs, tmp_path / 'runs')
  to_devices, batches = loop.to_devices, []

  def vanishing(batch, sharding):
    batches.append(batch)
    if len(batches) == 3:
      (runs / 'store' / 'volumes').rename(tmp_path / 'volumes')
    return to_devices(batch, sharding)

  with monkeypatch.context() as patch:
    patch.setattr(stores, '_CACHE_BYTES', 0)
    patch.setattr(loop, 'to_devices', vanishing)
    patch.setitem(STEPS, 'steps', 500)  # more than is read ahead
    result = main(runs, tmp_path / 'run', keep=500)
  line = error_line(result)
  assert f'{runs}/store: case ' in line
  assert 'cannot be read' in line or 'has no array' in line
  steps = steps_saved(tmp_path / 'run')
  assert steps[0] == 2
  (tmp_path / 'volumes').rename(runs / 'store' / 'volumes')
  code, _, err = main(runs, tmp_path / 'run', keep=500, steps=steps[-1] + 2)
  assert code == 0, err
  assert steps_saved(tmp_path / 'run')[-1] == steps[-1] + 2


def test_a_missing_store_is_refused_before_anything_is_written(
  nano_runs, tmp_path
):
  result = main(nano_runs, tmp_path / 'run', store=str(tmp_path / 'gone'))
  assert_refused(result, 'config.store', str(tmp_path / 'gone'))
  assert not (tmp_path / 'run').exists()
