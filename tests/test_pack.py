"""The pack command: a container's build context, and its entry point."""

import json
import os
import re
import subprocess
import sys
from importlib import metadata

import commands
import hub_fakes
import numpy as np
import pytest
from commands import ROOT, assert_refused

from synermedgen_jax.core.modalities import Modality, route_named
from synermedgen_jax.inference.translation import translate
from synermedgen_jax.inference.workdir import Trained
from synermedgen_jax.slices.itk import read_itk, write_mha
from synermedgen_jax.slices.volumes import Volume

pytestmark = pytest.mark.usefixtures('quick_compiles')
AFFINE = np.diag([2.0, 2, 3, 1])
MR = np.random.default_rng(0).uniform(0, 900, (12, 10, 3)).astype(np.float32)
BODY = np.zeros(MR.shape, np.uint8)
BODY[2:10, 2:8] = 1


def pack(workdir, output, source='mr', target='ct', region='brain'):
  return commands.run(
    'pack',
    f'--workdir={workdir}',
    f'--output={output}',
    f'--source={source}',
    f'--target={target}',
    f'--region={region}',
  )


@pytest.fixture(scope='module')
def context(nano_runs, tmp_path_factory):
  output = tmp_path_factory.mktemp('pack') / 'context'
  code, out, err = pack(nano_runs / 'stage2', output)
  assert code == 0, err
  assert out == (
    f'docker build --platform=linux/amd64 --tag=brain_mr_to_ct {output}\n'
  )
  return output


def test_the_dockerfile_builds_from_what_the_context_holds(context):
  lines = (context / 'Dockerfile').read_text().splitlines()
  assert lines[0] == 'FROM python:3.12-slim'
  copied = [re.sub(r'--\S+ ', '', x).split() for x in lines if 'COPY' in x]
  assert {source for _, source, _ in copied} == {
    *('requirements.txt', 'weights', 'synermedgen_jax', 'container.json'),
  }
  for _, source, target in copied:
    assert (context / source).exists()
    assert target in ('/opt/app/', f'/opt/app/{source}')
  assert sorted(path.name for path in context.iterdir()) == [
    *('Dockerfile', 'container.json', 'requirements.txt', 'synermedgen_jax'),
    'weights',
  ]


def test_the_program_runs_as_a_user_without_rights(context):
  lines = (context / 'Dockerfile').read_text().splitlines()
  assert lines[-2:] == [
    'USER user',
    'ENTRYPOINT ["python", "-m", "synermedgen_jax.container"]',
  ]
  assert 'WORKDIR /opt/app' in lines


def test_the_requirements_are_those_of_the_library_in_their_versions(context):
  lines = (context / 'requirements.txt').read_text().splitlines()
  wanted = [
    re.match(r'[\w.-]+', line)[0]
    for line in (ROOT / 'requirements.txt').read_text().splitlines()
    if not line.startswith('#')
  ]
  assert lines == [f'{name}=={metadata.version(name)}' for name in wanted]


def test_the_entry_point_is_that_of_the_context(context):
  done = subprocess.run(
    [sys.executable, '-m', 'synermedgen_jax.container', '--help'],
    cwd=context,
    env=os.environ | {'PYTHONPATH': '', 'PYTHONDONTWRITEBYTECODE': '1'},
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout.startswith('Synthesises the cases of /input')
  assert 'Default: /input.' in done.stdout
  assert not list(context.rglob('__pycache__'))
  code = (context / 'synermedgen_jax' / 'container.py').read_text()
  assert code == (ROOT / 'synermedgen_jax' / 'container.py').read_text()


def test_the_container_writes_what_the_run_translates(
  context, nano_runs, tmp_path
):
  images = tmp_path / 'input' / 'images'
  write_mha(images / 'mri' / 'one.mha', MR, AFFINE)
  write_mha(images / 'body' / 'two.mha', BODY, AFFINE)
  code, out, err = commands.run(
    'container',
    f'--context={context}',
    f'--input={tmp_path / "input"}',
    f'--output={tmp_path / "output"}',
  )
  assert code == 0, err
  assert len(out.splitlines()) == 1
  assert 'synthetic-ct/one.mha: shape (12, 10, 3)' in out
  data, affine = read_itk(
    tmp_path / 'output' / 'images' / 'synthetic-ct' / 'one.mha'
  )
  np.testing.assert_allclose(affine, AFFINE, atol=1e-6)
  expected = translate(
    Trained.load(nano_runs / 'stage2'),
    {Modality.MR: Volume(MR, AFFINE)},
    route_named('brain_mr_to_ct'),
  )
  inside = BODY == 1
  # The weights have the dtype of the computation, so nothing was rounded.
  np.testing.assert_array_equal(data[inside], np.rint(expected.data)[inside])
  assert (data[~inside] == -1024).all()


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'source': 'ct', 'target': 'mr'}, 'the interface of SynthRAD'),
    ({'source': 'cbct'}, 'was not trained on brain_cbct_to_ct, only on'),
    ({'region': 'knee'}, 'knee'),
  ],
)
def test_what_no_container_can_do_is_refused(
  nano_runs, tmp_path, arguments, message
):
  result = pack(nano_runs / 'stage2', tmp_path / 'context', **arguments)
  assert_refused(result, message)
  assert not (tmp_path / 'context').exists()


def test_runs_of_other_kinds_are_refused(nano_runs, tmp_path):
  result = pack(nano_runs / 'stage1', tmp_path / 'context')
  assert_refused(result, 'was not trained on brain_mr_to_ct')
  record = json.loads((nano_runs / 'stage2' / 'config.json').read_text())
  record['config']['modules'] = ['clinic.extension']
  (tmp_path / 'run').mkdir()
  (tmp_path / 'run' / 'config.json').write_text(json.dumps(record))
  result = pack(tmp_path / 'run', tmp_path / 'context')
  assert_refused(result, 'needs clinic.extension, which the container lacks')


def test_a_folder_without_a_route_is_refused(tmp_path):
  result = commands.run('container', f'--context={tmp_path}')
  assert_refused(result, 'container.json: names no route', 'pack')


def test_weights_that_were_shipped_predict_from_the_hub(nano_runs, tmp_path):
  weights = tmp_path / 'weights'
  write_mha(tmp_path / 'mr.mha', MR, AFFINE)
  with hub_fakes.fake_hub(tmp_path / 'cache') as hub:
    code, out, err = commands.run(
      'ship_weights',
      f'--workdir={nano_runs / "stage2"}',
      f'--output={weights}',
      *('--license=cc-by-4.0', '--push=o/n', '--public'),
    )
    assert code == 0, err
    (commit, _) = hub.files('o/n')
    assert not hub.private['o/n']
    size, folder, address = out.splitlines()
    assert size == '0.0 MB'
    assert folder == str(weights)
    assert address == f'hf://o/n@{commit}'
    code, _, err = commands.run(
      'predict',
      '--workdir=hf://o/n',
      f'--input={tmp_path / "mr.mha"}',
      *('--source=mr', '--target=ct', '--region=brain'),
      f'--output={tmp_path / "ct.nii.gz"}',
      '--noread',
    )
  assert code == 0, err
  assert (tmp_path / 'ct.nii.gz').is_file()
  record = json.loads((tmp_path / 'ct.json').read_text())
  (checkpoint,) = record['Checkpoints']
  assert checkpoint['Workdir'] == address
  assert checkpoint['Steps'] == [2]


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ([], '--workdir: name a run to export, or a --push'),
    (['--push=o/n', '--license=mit'], '--license: has no effect without'),
    (['--workdir=x', '--public'], '--public: has no effect without --push'),
    (['--push=name'], 'hf://name: expected hf://OWNER/NAME'),
    (['--push=o/n'], 'weights: has no weights.safetensors'),
  ],
)
def test_flags_of_ship_weights_that_contradict_are_refused(
  tmp_path, arguments, message
):
  result = commands.run(
    'ship_weights', f'--output={tmp_path / "weights"}', *arguments
  )
  assert_refused(result, message)
