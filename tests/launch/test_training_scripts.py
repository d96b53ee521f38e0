"""Which stages launch/demo.sh and launch/base.sh train, and from where.

Python writes down how it is called; configs and weights are the repository's.
"""

import itertools
import re

import pytest
from launch_fakes import ROOT, Stage

CALL = re.compile(
  r'--config=configs/(\S+):(\S+) --workdir=(\S+).* --config.init_from=(\S*)'
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
  return stage


def trained(box, script, *arguments):
  """(config, model, workdir, init_from) of every stage."""
  done = box.run(script, *arguments)
  assert done.returncode == 0, done.stderr
  calls = box.calls('synermedgen_jax.main')
  return [CALL.search(call).groups() for call in calls]


def test_the_demo_starts_from_the_base_and_trains_no_autoencoder(box):
  assert trained(box, 'demo.sh', 'out') == [
    ('stage1.py', 'small', 'out/stage1', 'weights/small'),
    ('stage2.py', 'small', 'out/stage2', 'out/stage1'),
  ]
  assert (ROOT / 'weights' / 'small' / 'model.json').is_file()


def test_the_demo_from_scratch_starts_with_its_autoencoder(box):
  assert trained(box, 'demo.sh', '--from_scratch', 'out') == [
    ('autoencoder.py', 'tiny', 'out/autoencoder', ''),
    ('stage1.py', 'tiny', 'out/stage1', 'out/autoencoder'),
    ('stage2.py', 'tiny', 'out/stage2', 'out/stage1'),
  ]


def test_the_demo_translates_a_held_out_brain(box):
  trained(box, 'demo.sh', 'out')
  (call,) = box.calls('synermedgen_jax.translate')
  assert '--input=out/phantoms/brain/c/mr.nii.gz' in call
  assert '--workdir=out/stage2' in call


def test_every_stage_of_the_base_goes_on_from_the_one_before(box):
  stages = trained(box, 'base.sh', 'out')
  assert [stage[0] for stage in stages] == [
    'base_autoencoder.py',
    'base_vision.py',
    'base_questions.py',
    'base_changes.py',
    'base_changes_again.py',
    'base_changes_more.py',
    'base_pictures.py',
    'base_pictures_more.py',
  ]
  assert {stage[1] for stage in stages} == {'small'}
  assert stages[0][3] == ''
  for before, after in itertools.pairwise(stages):
    assert after[3] == before[2]
  (ship,) = box.calls('synermedgen_jax.ship_weights')
  assert f'--workdir={stages[-1][2]} ' in ship
  for name, *_ in stages:
    assert (ROOT / 'configs' / name).is_file()
