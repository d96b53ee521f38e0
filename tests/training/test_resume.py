"""A run that is killed and resumed equals an undisturbed one."""

import contextlib
import dataclasses
import json
import logging
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import jax
import nano
import numpy as np
import orbax.checkpoint as ocp
import pytest
from store_fakes import CANVAS, write_store

from synermedgen_jax.checkpoint import model as saved_model
from synermedgen_jax.checkpoint import orbax_items as ckpt
from synermedgen_jax.models import presets
from synermedgen_jax.training import loop
from synermedgen_jax.training.preemption import Preempted, listening

TIMES = (
  'steps_per_second',
  'step_seconds/p50',
  'step_seconds/p95',
  'data_wait',
  'tokens_per_second',
  'images_per_second',
  'memory/host_gib',
)
ITEMS = ('params', 'ema', 'optimizer')


class Killed(BaseException):
  """The end of a process."""


def saved(workdir, step):
  """All leaves of a checkpoint by name, and the data position."""
  checkpoints = ckpt.manager(workdir / 'checkpoints')
  read = checkpoints.restore(
    step,
    args=ocp.args.Composite(**{i: ocp.args.StandardRestore() for i in ITEMS}),
  )
  checkpoints.close()
  leaves = {
    item: {
      jax.tree_util.keystr(path): np.asarray(leaf)
      for path, leaf in jax.tree_util.tree_leaves_with_path(read[item])
    }
    for item in ITEMS
  }
  places = (workdir / 'checkpoints' / str(step) / 'data').glob('*.json')
  return leaves, [json.loads(path.read_text()) for path in places]


def rows(workdir):
  """The metrics, without times."""
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  values = [json.loads(line) for line in lines]
  for row in values:
    for name in TIMES:
      assert row.pop(name) > 0
  return values


class Compiled(logging.Handler):
  """Counts compilations of train and validation steps."""

  def __init__(self):
    super().__init__()
    self.count = 0

  def emit(self, record):
    self.count += 'Compiling jit(step)' in record.getMessage()


@contextlib.contextmanager
def counted():
  logger, handler = logging.getLogger('jax'), Compiled()
  logger.addHandler(handler)
  try:
    with jax.log_compiles():
      yield handler
  finally:
    logger.removeHandler(handler)


@dataclasses.dataclass
class Run:
  """Results of a run."""

  workdir: Path
  rows: list
  compiled: int


@pytest.fixture(scope='module')
def whole(nano_runs):
  """Joint training, in four steps."""
  return nano_runs / 'joint'


@pytest.fixture(scope='module')
def joint(nano_runs, tmp_path_factory, quick_compiles):
  """The same again, as a function, with a step to die in if any."""
  workdir = tmp_path_factory.mktemp('killed') / 'joint'
  to_devices = loop.to_devices

  def train(dies_in=None):
    batches = []

    def to_devices_or_die(batch, sharding):
      batches.append(batch)
      if len(batches) == dies_in:
        _wait_for(workdir / 'checkpoints' / '2')
        raise Killed
      return to_devices(batch, sharding)

    with pytest.MonkeyPatch.context() as patch, counted() as compiled:
      patch.setitem(presets.PRESETS, 'nano', lambda: nano.MODEL)
      patch.setattr(loop, 'to_devices', to_devices_or_die)
      with contextlib.suppress(Killed):
        nano.train(nano.stage_config('joint', nano_runs), workdir)
    return Run(workdir, rows(workdir), compiled.count)

  return train


def _wait_for(path):
  deadline = time.monotonic() + 60
  while not path.exists():
    assert time.monotonic() < deadline
    time.sleep(0.01)


@pytest.fixture(scope='module')
def killed(joint):
  return joint(dies_in=4)


@pytest.fixture(scope='module')
def resumed(joint, killed):
  return joint()


def test_a_killed_run_left_rows_beyond_its_checkpoint(killed):
  assert [row['step'] for row in killed.rows] == [1, 2, 3]


def test_a_resumed_run_has_the_metrics_of_one_that_was_not_killed(
  whole, resumed
):
  assert [row['step'] for row in resumed.rows] == [1, 2, 3, 4]
  assert resumed.rows == rows(whole)


def test_a_resumed_run_is_the_same_to_the_bit(whole, resumed):
  state, place = saved(resumed.workdir, 4)
  expected, expected_place = saved(whole, 4)
  assert place == expected_place
  for item, leaves in expected.items():
    assert state[item].keys() == leaves.keys()
    for name, leaf in leaves.items():
      np.testing.assert_array_equal(state[item][name], leaf, err_msg=name)


def test_the_second_half_of_a_run_changes_all_that_is_compared(whole):
  before, place = saved(whole, 2)
  after, later = saved(whole, 4)
  assert place != later
  for item in ITEMS:
    assert any(
      (leaf != after[item][name]).any() for name, leaf in before[item].items()
    )


def test_steps_compile_once(killed, resumed):
  # The train step, three batches; then again two, and the validation step.
  assert killed.compiled == 1
  assert resumed.compiled == 2


@pytest.fixture
def train(nano_runs, quick_compiles, monkeypatch):
  """Joint training in a workdir, without interruption."""
  monkeypatch.setitem(presets.PRESETS, 'nano', lambda: nano.MODEL)

  def train(workdir):
    with listening() as notice:
      nano.train(nano.stage_config('joint', nano_runs), workdir, notice)

  return train


def assert_same_end(workdir, whole):
  state, place = saved(workdir, 4)
  expected, expected_place = saved(whole, 4)
  assert place == expected_place
  for item, leaves in expected.items():
    for name, leaf in leaves.items():
      np.testing.assert_array_equal(state[item][name], leaf, err_msg=name)
  assert rows(workdir) == rows(whole)


@pytest.mark.parametrize(
  'notice_in', [pytest.param(1, marks=pytest.mark.slow), 3]
)
def test_a_preempted_run_saves_its_step_and_resumes_later(
  train, whole, tmp_path, monkeypatch, notice_in
):
  to_devices, batches = loop.to_devices, []
  handler = signal.getsignal(signal.SIGTERM)

  def noticed(batch, sharding):
    batches.append(batch)
    if len(batches) == notice_in:
      os.kill(os.getpid(), signal.SIGTERM)
    return to_devices(batch, sharding)

  workdir = tmp_path / 'joint'
  with monkeypatch.context() as patch:
    patch.setattr(loop, 'to_devices', noticed)
    with pytest.raises(
      Preempted, match=f'stopped after step {notice_in}, which'
    ):
      train(workdir)
  assert len(batches) == notice_in
  assert (workdir / 'checkpoints' / str(notice_in)).is_dir()
  assert signal.getsignal(signal.SIGTERM) is handler
  train(workdir)
  assert_same_end(workdir, whole)


def damage(checkpoint):
  """Cuts all files of the parameters' numbers in half.

  One alone, be it the largest, may be one that nothing refers to any more.
  """
  files = [p for p in (checkpoint / 'params').rglob('d/*') if p.is_file()]
  for path in files:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_a_damaged_checkpoint_is_moved_away_and_the_previous_one_used(
  train, whole, tmp_path, capsys
):
  workdir = shutil.copytree(whole, tmp_path / 'joint')
  damage(workdir / 'checkpoints' / '4')
  train(workdir)
  (aside,) = (workdir / 'damaged').iterdir()
  assert aside.name.startswith('4.')
  assert (aside / 'params').is_dir()
  output = capsys.readouterr().out
  assert f'{workdir}/checkpoints/4: cannot be read (' in output
  assert f'Put aside as {aside}; step 2 goes on.' in output
  assert_same_end(workdir, whole)


def test_a_run_does_not_restart_if_every_checkpoint_is_damaged(
  train, whole, tmp_path
):
  workdir = shutil.copytree(whole, tmp_path / 'joint')
  for step in ('2', '4'):
    damage(workdir / 'checkpoints' / step)
  with pytest.raises(ckpt.CheckpointError, match='checkpoints/4: cannot be'):
    train(workdir)
  assert {p.name for p in (workdir / 'checkpoints').iterdir()} == {'2', '4'}
  assert not (workdir / 'damaged').exists()


def test_a_notice_before_the_first_step_stops_the_run(
  nano_runs, nano_preset, quick_compiles, tmp_path
):
  notice = threading.Event()
  notice.set()
  with pytest.raises(Preempted, match='joint: stopped after step 0'):
    nano.train(
      nano.stage_config('joint', nano_runs), tmp_path / 'joint', notice
    )
  assert not list((tmp_path / 'joint' / 'checkpoints').iterdir())


def test_every_checkpoint_of_an_autoencoder_has_scaled_latents(
  nano_runs, nano_preset, quick_compiles, tmp_path
):
  workdir = tmp_path / 'autoencoder'
  config = nano.stage_config(
    'autoencoder', nano_runs, steps=2, checkpoint_every=1
  )
  nano.train(config, workdir)
  for step in ('1', '2'):
    _, params = saved_model.load_model(workdir / 'checkpoints', which=step)
    scale = params['autoencoder']['latent_scale']
    assert (np.abs(scale - nano.MODEL.autoencoder.scale_factor) > 0.01).all()


def other_store(path):
  """The nano store without one of its training subjects."""
  write_store(path, without='case1')
  return {'store': str(path)}


OTHER_DATA = {
  'store': (other_store, r'config\.store fingerprint \w+, which is fingerp'),
  'neighbours': (
    lambda _: {'neighbours': 5},
    r'config\.neighbours 3, which is 5 now',
  ),
  'image': (
    lambda _: {'image': {'vit_size': (8, 16), 'vae_size': (CANVAS, CANVAS)}},
    r"config\.image \{'vit_size': \[16, .*, which is \{'vit_size': \[8, 16\]",
  ),
  'bagel_files': (
    lambda path: {'bagel_files': {'vlm': f'{path}.jsonl'}},
    r"config\.bagel_files \{\}, which is \{'vlm': .* now",
  ),
}


@pytest.mark.parametrize('what', OTHER_DATA)
def test_a_run_does_not_resume_with_other_data(
  nano_runs, nano_preset, tmp_path, what
):
  change, message = OTHER_DATA[what]
  workdir = shutil.copytree(nano_runs / 'stage1', tmp_path / 'stage1')
  config = nano.stage_config('stage1', nano_runs, steps=4)
  config.update(change(tmp_path / 'other'))
  with pytest.raises(ckpt.CheckpointError, match=message):
    nano.train(config, workdir)


def test_a_run_goes_on_with_its_store_in_another_place(
  nano_runs, nano_preset, quick_compiles, tmp_path
):
  workdir = shutil.copytree(nano_runs / 'stage1', tmp_path / 'stage1')
  store = shutil.copytree(nano_runs / 'store', tmp_path / 'moved')
  config = nano.stage_config('stage1', nano_runs, steps=3, store=str(store))
  nano.train(config, workdir)
  assert saved_model.latest(workdir / 'checkpoints')[1] == 3
