"""docs/extend.md, followed: a project adds one of everything from outside.

Prepare, train, evaluate and report then work on it, with the commands of the
page, though the library names none of it.
"""

import concurrent.futures
import json
import re
import subprocess
import sys
from pathlib import Path

import commands
import nibabel as nib
import numpy as np
import pytest
from commands import ROOT, assert_refused

from synermedgen_jax.core import modalities
from synermedgen_jax.core.modalities import Modality, Region
from synermedgen_jax.evaluation import metrics, synthesisers
from synermedgen_jax.evaluation.lines import comparison_lines
from synermedgen_jax.slices import public_datasets, workers
from synermedgen_jax.tasks import registry
from synermedgen_jax.training import objectives

pytestmark = pytest.mark.usefixtures('quick_compiles')

HERE = Path(__file__).parent
PAGE = ROOT / 'docs' / 'extend.md'
TABLES = (
  modalities._ROUTES_BY_NAME,
  modalities._ROUTES_BY_KEY,
  Modality.members,
  Region.members,
  metrics.METRICS,
  synthesisers.SYNTHESISERS,
  public_datasets.PUBLIC_DATASETS,
  registry.TASKS,
  objectives.OBJECTIVES,
)
SUBJECTS = {'train': 3, 'val': 1, 'test': 2}


@pytest.fixture(scope='module')
def tables():
  """The tables as the library fills them, and again so in the end."""
  before = [dict(table) for table in TABLES]
  yield
  for table, rows in zip(TABLES, before, strict=True):
    table.clear()
    table.update(rows)
  sys.modules.pop('extension', None)


def write_volumes(root):
  """Bodies whose ultrasound is a line of their CT, but for noise."""
  rng = np.random.default_rng(0)
  x, y, _ = np.indices((16, 16, 6))
  body = (x - 7.5) ** 2 + (y - 7.5) ** 2 < 40
  for split, count in SUBJECTS.items():
    for number in range(count):
      folder = root / split / f'{split}{number}'
      folder.mkdir(parents=True)
      ct = np.where(body, rng.uniform(-400, 900, body.shape), -1000)
      us = np.where(body, 0.1 * (ct + 1000) + rng.uniform(0, 5, ct.shape), 0)
      for name, data in (('ct', ct), ('us', us)):
        image = nib.Nifti1Image(data.astype(np.float32), np.diag([2, 2, 3, 1]))
        nib.save(image, folder / f'{name}.nii.gz')


def run(command, *arguments):
  code, out, err = commands.run(command, *arguments)
  assert code == 0, err
  return out


@pytest.fixture(scope='module')
def project(tables, quick_compiles, tmp_path_factory):
  """A store and a run of the project, made with the library's commands."""
  import nano

  from synermedgen_jax.models import presets

  root = tmp_path_factory.mktemp('project')
  write_volumes(root / 'clinic')
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(presets.PRESETS, 'nano', lambda: nano.MODEL)
    patch.setattr(  # quick: the other processes are tested by themselves
      concurrent.futures,
      'ProcessPoolExecutor',
      lambda workers, *_, **__: concurrent.futures.ThreadPoolExecutor(workers),
    )
    run(
      'prepare',
      '--dataset=clinic',
      f'--root={root}/clinic',
      '--modules=extension',
      '--canvas=16',
      '--most_offset=0',
      f'--store={root}/store',
    )
    run(
      'main',
      f'--config={HERE}/extension_config.py',
      f'--config.store={root}/store',
      f'--workdir={root}/run',
    )
  return root


@pytest.fixture(scope='module')
def measured(project):
  """The results of evaluate for the run's own model, then for the baseline."""
  path = project / 'run' / 'evaluation' / 'metrics.json'
  results = []
  for more in ((), ('--synthesiser=linear_fit',)):
    out = run(
      'evaluate',
      f'--workdir={project}/run',
      '--modules=extension',
      '--questions=4',
      *more,
    )
    results.append((json.loads(path.read_text()), out))
  return results


def rows(project):
  lines = (project / 'run' / 'metrics.jsonl').read_text().splitlines()
  return [json.loads(line) for line in lines]


def test_the_stage_trains_on_the_task_and_adds_its_own_term(project):
  last = rows(project)[-1]
  assert last['ntp/same_place'] > 0
  assert last['flow'] > 0
  penalty = 0.01 * last['connector_l2']
  expected = last['ntp/same_place'] + last['flow'] + penalty
  assert last['loss'] == pytest.approx(expected, rel=1e-3)


def test_the_task_is_asked_beside_the_librarys(measured):
  result, out = measured[0]
  assert list(result['understanding']) == ['cts', 'mi', 'tia', 'same_place']
  assert result['understanding']['same_place']['count'] == 4
  definition = result['definition']['understanding']['same_place']
  assert definition['task'].startswith('whether a source and a target slice')
  assert 'SAME_PLACE' in out


def test_the_routes_of_the_modality_are_synthesised(measured):
  result, out = measured[0]
  routes = {'pelvis_ct_to_us', 'pelvis_us_to_ct'}
  assert result['synthesis'].keys() == routes
  assert result['synthesis']['pelvis_ct_to_us']['unit'] == 'a.u.'
  assert all(route in out for route in routes)


def test_the_routes_of_the_modality_are_compared_apart_from_the_22(project):
  compared = {line.title: line.routes for line in comparison_lines()}
  added = {'pelvis_ct_to_us', 'pelvis_us_to_ct'}
  assert added <= set(compared['SSIM, other routes'])
  assert not added & set(compared['SSIM, 22 routes'])
  assert len(compared['SSIM, 22 routes']) == 22


def test_the_metric_has_a_value_a_definition_and_a_column(measured):
  result, out = measured[0]
  for score in result['synthesis'].values():
    assert score['rmse'] >= score['mae'] > 0
    assert score['baselines']['copy_source']['rmse'] > 0
    assert score['full_frame']['rmse'] > 0
  assert result['definition']['synthesis']['rmse']['unit']
  assert 'rmse' in out


def test_the_synthesis_model_is_scored_instead_of_the_runs_own(measured):
  (own, _), (fitted, _) = measured
  assert own['sampling']['points'] == 2
  assert fitted['sampling'] == {'synthesiser': 'linear_fit'}
  for route, score in fitted['synthesis'].items():
    # The targets are a line of the sources; an untrained model is far off.
    assert score['ssim'] > 0.9 > own['synthesis'][route]['ssim']
    assert score['baselines'] == own['synthesis'][route]['baselines']


def test_the_report_shows_all_of_it(project, measured):
  run('report', f'--workdir={project}/run', '--modules=extension')
  page = (project / 'run' / 'report' / 'index.html').read_text()
  for words in (
    'SAME_PLACE, recognition of one place in two modalities',
    'ultrasound',
    'rmse',
    'Synthesised by linear_fit',
    'joint_l2',
  ):
    assert words in page, words


@pytest.mark.parametrize('command', ['evaluate', 'report', 'predict'])
def test_a_run_whose_modules_are_not_imported_names_the_flag(
  project, monkeypatch, command
):
  monkeypatch.delitem(sys.modules, 'extension')
  arguments = [f'--workdir={project}/run']
  if command == 'predict':
    source = next((project / 'clinic' / 'test').rglob('ct.nii.gz'))
    arguments += [f'--input={source}', f'--output={project}/us.nii.gz']
    arguments += ['--source=ct', '--target=us', '--region=pelvis']
  assert_refused(
    commands.run(command, *arguments),
    f'{project}/run: was trained with modules of a project; add '
    '--modules=extension.',
  )


@pytest.mark.parametrize('command', ['evaluate', 'report', 'prepare'])
def test_a_module_that_cannot_be_imported_is_named(tmp_path, command):
  arguments = [f'--workdir={tmp_path}']
  if command == 'prepare':
    arguments = ['--dataset=x', '--root=x', f'--store={tmp_path}/store']
  assert_refused(
    commands.run(command, *arguments, '--modules=nowhere'),
    "nowhere: cannot be imported (No module named 'nowhere')",
  )


def test_translate_knows_the_modality(project):
  source = next((project / 'clinic' / 'test').rglob('ct.nii.gz'))
  out = run(
    'predict',
    f'--workdir={project}/run',
    '--modules=extension',
    f'--input={source}',
    '--source=ct',
    '--target=us',
    '--region=pelvis',
    f'--output={project}/us.nii.gz',
  )
  assert 'ultrasound in a.u.' in out
  assert nib.load(project / 'us.nii.gz').shape == (16, 16, 6)


def test_workers_of_prepare_import_the_modules(tables):
  import extension

  with workers.processes(1, ('extension',)) as pool:
    assert pool.submit(str, extension.US).result() == 'us'


def pieces():
  """The marked pieces of tests/extension.py, by name."""
  source = (HERE / 'extension.py').read_text()
  blocks = re.findall(
    r'^# extend: (\w+)\n(.*?)^# extend: end$', source, re.MULTILINE | re.DOTALL
  )
  return dict(blocks)


def test_the_page_shows_the_tested_code():
  blocks = re.findall(r'```python\n(.*?)```', PAGE.read_text(), re.DOTALL)
  shown = [block.strip() for block in blocks]
  for name, code in pieces().items():
    assert code.strip() in shown, f'docs/extend.md lacks the piece {name!r}'


def test_the_library_names_none_of_it():
  words = r'same_place|linear_fit|joint_l2|ultrasound|rmse'
  result = subprocess.run(
    ['grep', '-rnE', words, 'synermedgen_jax', 'configs', '--include=*.py'],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert result.stdout == ''
