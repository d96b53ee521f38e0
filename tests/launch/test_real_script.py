"""launch/real.sh: where patients come from, and what it calls with them.

Python writes down how it is called. Git is real, with a local repository in
place of the public one. The slow test runs all commands on the crops.
"""

import json
import shutil
import subprocess
import sys

import pytest
from launch_fakes import ROOT, Stage, assert_refused

SCRIPT = 'launch/real.sh'
CROPS = ROOT / 'tests' / 'data' / 'sts'
NAMES = {'ct': 'CT_image', 'mr': 'MR_T1_image', 'pet': 'PET_image'}


@pytest.fixture
def box(tmp_path):
  """An environment that is set up, with a fake Python in it."""
  stage = Stage(tmp_path)
  (stage.root / 'requirements.txt').write_text('jax\n')
  stage.fake('../repository/.venv/bin/python')
  stamp = stage.root / '.venv' / 'requirements.txt.installed'
  stamp.write_text('jax\n' * 2)
  return stage


@pytest.fixture
def public(tmp_path):
  """The address of a repository with the layout of the public set."""
  root = tmp_path / 'public'
  for subject in sorted(CROPS.glob('STS_*')):
    folder = root / 'ibsi_validation' / 'nifti' / subject.name
    folder.mkdir(parents=True)
    for name, published in NAMES.items():
      shutil.copy(subject / f'{name}.nii.gz', folder / f'{published}.nii.gz')
  (root / 'ibsi_validation' / 'LICENSE.md').write_text('CC BY 3.0\n')
  dicom = root / 'ibsi_validation' / 'dicom' / 'STS_035' / '1.dcm'
  dicom.parent.mkdir(parents=True)
  dicom.touch()
  author = ('-c', 'user.name=a', '-c', 'user.email=a@example.org')
  for command in (
    ('init', '--quiet'),
    ('config', 'uploadpack.allowFilter', 'true'),
    ('add', '.'),
    (*author, 'commit', '--quiet', '--message=The set'),
  ):
    subprocess.run(['git', '-C', root, *command], check=True)
  return f'file://{root}'


def words(box, module):
  """The words of the one call of a module."""
  (call,) = box.calls(f'synermedgen_jax.{module}')
  return call.split()


def test_a_folder_of_the_public_set_is_prepared_and_enters_the_arena(box):
  done = box.run(SCRIPT, str(CROPS), 'out', '--announce')
  assert done.returncode == 0, done.stderr
  prepare, arena = words(box, 'prepare'), words(box, 'arena')
  assert {
    '--dataset=ibsi_sts',
    f'--root={CROPS}',
    '--register=rigid',
    '--store=out/store',
  } <= set(prepare)
  assert {'--store=out/store', '--run=out/arena'} <= set(arena)
  assert arena[-1] == '--announce'  # behind the script's own options
  assert not box.calls('synermedgen_jax.report')  # nothing was evaluated


def test_every_system_of_the_arena_takes_part(box):
  from synermedgen_jax.planning.arena import OURS, SYSTEMS

  box.run(SCRIPT, str(CROPS))
  (systems,) = [w for w in words(box, 'arena') if w.startswith('--systems=')]
  named = systems.removeprefix('--systems=').split(',')
  assert sorted(named) == sorted([OURS, *SYSTEMS])


def test_every_budget_has_a_report_of_our_model_once_it_is_evaluated(box):
  workdirs = [
    f'runs/real/arena/{budget}/0/synermedgen'
    for budget in ('images-24000', 'operations-1e13', 'operations-2e13')
  ]
  for workdir in workdirs:
    (box.root / workdir / 'evaluation').mkdir(parents=True)
  for workdir in workdirs[:2]:
    (box.root / workdir / 'evaluation' / 'metrics.json').touch()
  assert box.run(SCRIPT, str(CROPS)).returncode == 0
  reports = box.calls('synermedgen_jax.report')
  assert [call.split()[-1] for call in reports] == [
    f'--workdir={workdir}' for workdir in workdirs[:2]
  ]


@pytest.mark.parametrize(
  ('region', 'reference'),
  [('pelvis', 'mr,ct,t1,lge'), ('whole_body', 'ct')],
)
def test_other_patients_are_read_as_a_folder_of_a_region(
  box, tmp_path, region, reference
):
  (tmp_path / 'study').mkdir()
  done = box.run(SCRIPT, str(tmp_path / 'study'), REGION=region)
  assert done.returncode == 0, done.stderr
  assert {
    '--dataset=folder',
    f'--region={region}',
    f'--reference={reference}',
  } <= set(words(box, 'prepare'))


@pytest.mark.parametrize('arguments', [('', 'out'), ()])
def test_without_a_folder_the_public_set_is_cloned_once(box, public, arguments):
  first = box.run(SCRIPT, *arguments, SOURCE=public)
  assert first.returncode == 0, first.stderr
  run = arguments[1] if arguments else 'runs/real'
  assert f'--root={run}/data' in words(box, 'prepare')
  data = box.root / run / 'data'
  files = {
    str(p.relative_to(data))
    for p in data.rglob('*')
    if p.is_file() and '.git' not in p.parts
  }
  assert files == {'ibsi_validation/LICENSE.md'} | {
    f'ibsi_validation/nifti/{subject}/{name}.nii.gz'
    for subject in ('STS_035', 'STS_042')
    for name in NAMES.values()
  }
  again = box.run(SCRIPT, *arguments, SOURCE='/nowhere')
  assert again.returncode == 0, again.stderr


def test_an_interrupted_clone_is_made_again(box, public):
  (box.root / 'out' / 'data.partial' / '.git').mkdir(parents=True)
  assert box.run(SCRIPT, '', 'out', SOURCE=public).returncode == 0
  assert (box.root / 'out' / 'data' / 'ibsi_validation').is_dir()
  assert not (box.root / 'out' / 'data.partial').exists()


def test_an_address_that_does_not_answer_is_named(box):
  done = box.run(SCRIPT, '', 'out', SOURCE='file:///nowhere')
  assert_refused(done, 'file:///nowhere: cannot be cloned', 'name a folder')
  assert not (box.root / 'out' / 'data').exists()
  assert not box.calls()


def test_a_missing_git_is_named(box, tmp_path):
  programs = tmp_path / 'programs'
  programs.mkdir()
  for name in ('bash', 'dirname'):
    (programs / name).symlink_to(shutil.which(name))
  done = box.run(SCRIPT, PATH=str(programs))
  assert_refused(done, 'git: is not installed', 'name a folder')


@pytest.mark.parametrize(
  ('names', 'region', 'message'),
  [
    (None, '', 'study: no such folder'),
    ([], '', 'holds no patient of the public set'),
    (['p1/ct.nii.gz', 'p1/mr.nii.gz'], '', 'REGION=pelvis bash launch/real.sh'),
  ],
)
def test_a_folder_without_patients_is_named(
  box, tmp_path, names, region, message
):
  study = tmp_path / 'study'
  if names is not None:
    study.mkdir()
    for name in names:
      (study / name).parent.mkdir(exist_ok=True)
      (study / name).touch()
  done = box.run(SCRIPT, str(study), REGION=region)
  assert_refused(done, str(study), message)
  assert not box.calls()


def test_a_region_without_a_folder_is_refused(box):
  assert_refused(box.run(SCRIPT, REGION='pelvis'), 'REGION=pelvis: needs a')


SHORT = """
import importlib

def get_config(*model):
  module = importlib.import_module('configs.small.{name}')
  config = module.get_config(*model)
  config.steps = 2
  config.val_every = 0
  return config
"""


@pytest.mark.slow
def test_the_crops_pass_from_files_to_the_arena_and_the_report(box):
  """All commands, with two steps of each stage."""
  python = box.root / '.venv' / 'bin' / 'python'
  python.unlink()
  python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
  python.chmod(0o755)
  (box.root / 'weights').symlink_to(ROOT / 'weights')
  for name in ('stage1', 'stage2', 'unet'):
    config = box.root / 'short' / f'{name}.py'
    config.parent.mkdir(exist_ok=True)
    config.write_text(SHORT.format(name=name))
  command = (
    *('bash', box.root / SCRIPT, CROPS, 'out', '--configs=short'),
    *('--systems=synermedgen,unet', '--budget=images:32', '--slices=2'),
  )
  env = {**box.env, 'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'}
  env['JAX_DISABLE_MOST_OPTIMIZATIONS'] = '1'
  done = subprocess.run(
    command, env=env, capture_output=True, text=True, timeout=550
  )
  assert done.returncode == 0, done.stderr
  out = box.root / 'out'
  manifest = (out / 'store' / 'manifest.jsonl').read_text().splitlines()
  cases = [json.loads(line) for line in manifest]
  assert len(cases) == 4
  # All cases of a person have the same split.
  splits = {(case['patient'], case['split']) for case in cases}
  assert sorted(split for _, split in splits) == ['test', 'train']
  arena = out / 'arena' / 'images-32'
  systems = json.loads((arena / 'arena.json').read_text())['systems']
  assert {'synermedgen', 'unet', 'copy_source'} <= set(systems)
  for system in systems.values():
    assert set(system['routes']) == {
      *('whole_body_ct_to_pet', 'whole_body_pet_to_ct'),
      *('pelvis_ct_to_mr', 'pelvis_mr_to_ct'),
    }
  stage2 = arena / '0' / 'synermedgen'
  metrics = json.loads((stage2 / 'evaluation' / 'metrics.json').read_text())
  assert set(metrics['understanding']) == {'cts', 'mi', 'tia'}
  assert (stage2 / 'report' / 'index.html').stat().st_size > 10_000
