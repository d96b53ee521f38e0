"""Stages that the demo and the small base train, and their starts.

Python writes down how it is called; configs and weights are the repository's.
"""

import itertools
import re

import pytest
from launch_fakes import ROOT, Stage, assert_refused

CALL = re.compile(
  r'--config=(\S+) --workdir=(\S+).*?(?: --config.init_from=(\S*)|$)'
)


@pytest.fixture
def box(tmp_path):
  """An environment that is set up, with a fake Python and a store in it."""
  stage = Stage(tmp_path)
  (stage.root / 'requirements.txt').write_text('jax\n')
  stage.fake('../repository/.venv/bin/python')
  stamp = stage.root / '.venv' / 'requirements.txt.installed'
  stamp.write_text('jax\n' * 2)
  manifest = stage.root / 'out' / 'store' / 'manifest.jsonl'
  manifest.parent.mkdir(parents=True)
  manifest.write_text(
    '{"dataset": "pelvis", "subject": "a", "split": "test"}\n'
    '{"dataset": "brain", "subject": "b", "split": "train"}\n'
    '{"dataset": "brain", "subject": "c", "split": "test"}\n'
  )
  paced(stage, 1.0)
  return stage


def paced(box, pace):
  """Writes metrics of a Stage II that ran at `pace` steps per second."""
  metrics = box.root / 'out' / 'stage2_detail' / 'metrics.jsonl'
  metrics.parent.mkdir(exist_ok=True)
  metrics.write_text(
    '{"step": 50, "steps_per_second": 0.1}\n'
    f'{{"step": 1300, "loss": 0.6, "steps_per_second": {pace}, "memory": 1}}\n'
  )


def trained(box, script, *arguments):
  """(config, workdir, init_from) of every stage; None = the config's."""
  done = box.run(script, *arguments)
  assert done.returncode == 0, done.stderr
  calls = box.calls('synermedgen_jax.main')
  return [CALL.search(call).groups() for call in calls]


def test_the_demo_starts_from_the_base_and_trains_no_autoencoder(box):
  assert trained(box, 'launch/demo.sh', 'out') == [
    ('configs/small/stage1.py', 'out/stage1', 'weights/small'),
    ('configs/small/stage2_detail.py', 'out/stage2_detail', 'out/stage1'),
    ('configs/small/detail.py', 'out/detail', 'out/stage2_detail'),
  ]
  assert (ROOT / 'weights' / 'small' / 'model.json').is_file()


def test_the_demo_from_scratch_starts_with_its_autoencoder(box):
  assert trained(box, 'launch/demo.sh', '--from_scratch', 'out') == [
    ('configs/tiny/autoencoder.py', 'out/autoencoder', 'out/start'),
    ('configs/tiny/stage1_first.py', 'out/stage1_first', 'out/autoencoder'),
    ('configs/tiny/stage1.py', 'out/stage1', 'out/stage1_first'),
    ('configs/tiny/stage2.py', 'out/stage2', 'out/stage1'),
  ]


def detail_steps(box, pace, **environment):
  """Steps of the detail path after a Stage II of `pace` steps per second."""
  paced(box, pace)
  done = box.run('launch/demo.sh', 'out', **environment)
  assert done.returncode == 0, done.stderr
  calls = box.calls('synermedgen_jax.main')
  (steps,) = re.findall(r'--config.steps=(\S+)', calls[-1])
  return int(steps)


def test_the_detail_path_of_the_demo_takes_the_time_that_is_left(box):
  assert 4300 <= detail_steps(box, 5.04321) <= 4500  # 10 minutes, less a few s


@pytest.mark.parametrize(
  ('pace', 'minutes', 'steps'),
  [(0.4, '10', 900), (9.9, '0', 900), (99.9, '10', 10000)],
)
def test_the_demo_bounds_the_steps_of_the_detail_path(
  box, pace, minutes, steps
):
  assert detail_steps(box, pace, MINUTES=minutes) == steps


@pytest.mark.parametrize('minutes', ['ten', '-1', '1.5'])
def test_invalid_minutes_are_refused_before_anything_runs(box, minutes):
  result = box.run('launch/demo.sh', 'out', MINUTES=minutes)
  assert_refused(result, f'MINUTES={minutes}', 'whole number')
  assert not box.calls('synermedgen_jax')


def test_a_second_run_of_the_demo_keeps_its_steps(box):
  assert detail_steps(box, 99.9) == detail_steps(box, 2.0) == 10000


def test_the_demo_from_scratch_has_the_steps_of_its_config(box):
  trained(box, 'launch/demo.sh', '--from_scratch', 'out')
  assert not any('config.steps' in c for c in box.calls('synermedgen_jax.main'))


def test_the_bodies_of_the_demo_fill_their_canvas(box):
  trained(box, 'launch/demo.sh', 'out')
  (call,) = box.calls('synermedgen_jax.prepare')
  assert {'--canvas=64', '--frame=body'} <= set(call.split())


def test_the_demo_translates_a_held_out_brain(box):
  trained(box, 'launch/demo.sh', 'out')
  (call,) = box.calls('synermedgen_jax.predict')
  assert '--input=out/phantoms/brain/c/mr.nii.gz' in call
  assert '--workdir=out/detail' in call


def test_every_stage_of_the_base_goes_on_from_the_one_before(box):
  stages = trained(box, 'projects/small_base/run.sh', 'out')
  assert [stage[0] for stage in stages] == [
    f'projects/small_base/configs/{name}.py'
    for name in (
      *('autoencoder', 'vision', 'views', 'questions'),
      *('changes', 'changes_again', 'changes_more'),
      *('pictures', 'pictures_more'),
    )
  ]
  assert stages[0][2] == 'out/start'
  for before, after in itertools.pairwise(stages):
    assert after[2] == before[1]
  (ship,) = box.calls('projects.small_base.ship')
  assert f'--workdir={stages[-1][1]} ' in ship
  for name, *_ in stages:
    assert (ROOT / name).is_file()
