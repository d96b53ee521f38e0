"""`evaluate --intervals` measures a run, `predict --intervals` writes them.

The model is a fake, so that nothing is compiled.
"""

import json
import shutil
import types

import commands
import nibabel as nib
import numpy as np
import pytest
from commands import assert_refused
from store_fakes import CANVAS

from synermedgen_jax.inference import prediction_runs
from synermedgen_jax.inference.intervals import FILE
from synermedgen_jax.inference.volume import Synthesiser

NORMAL_ROUTES = ['brain_mr_to_ct', 'brain_ct_to_mr']
STEP = 0.05  # of one seed to the next, in [-1, 1]


@pytest.fixture
def workdir(nano_runs, tmp_path):
  return shutil.copytree(nano_runs / 'stage2', tmp_path / 'stage2')


@pytest.fixture
def seeds(monkeypatch):
  """A model that copies the source, brighter by the seed; returns the calls."""
  calls = []

  def synthesise(self, route, sources, *, seed, progress=None):
    if progress:
      progress(sources.shape[1])
    calls.append((seed, self.sampling.draws))
    return sources[0] + np.float32(STEP * seed)

  monkeypatch.setattr(Synthesiser, 'synthesise', synthesise)
  return calls


def evaluate(workdir, *flags):
  return commands.run(
    'evaluate', f'--workdir={workdir}', '--parts=synthesis', *flags
  )


def test_evaluate_measures_the_routes_that_validation_subjects_have(
  workdir, monkeypatch
):
  noise = np.random.default_rng(0)

  def synthesise(self, route, sources, *, seed, progress=None):
    return sources[0] + noise.normal(0, 0.01, sources[0].shape).astype('f4')

  monkeypatch.setattr(Synthesiser, 'synthesise', synthesise)
  monkeypatch.setattr(Synthesiser, 'reconstruct', lambda self, slices: slices)
  code, out, err = evaluate(
    workdir, '--intervals', '--interval_draws=3', '--slices=2', '--seed=4'
  )
  assert code == 0, err
  record = json.loads((workdir / FILE).read_text())
  assert (record['draws'], record['slices'], record['seed']) == (3, 2, 4)
  assert (record['split'], record['steps']) == ('test', [2])
  for name in NORMAL_ROUTES:
    assert record['routes'][name]['factor'] > 0
  pelvis = record['routes']['pelvis_cbct_to_ct']
  assert pelvis['factor'] is None
  assert pelvis['reason'] == 'no validation subject has the route'
  metrics = json.loads((workdir / 'evaluation/metrics.json').read_text())
  assert metrics['definition']['intervals'] == record['definition']
  assert 'pelvis_cbct_to_ct' in out.split('factor')[1]
  assert 'not offered: no validation subject' in out


USELESS = {
  'draws': (['--interval_draws=3'], '--interval_draws: has no effect without'),
  'val': (['--intervals', '--split=val'], '--split=val: '),
  'part': (
    ['--intervals', '--parts=understanding'],
    'intervals: need synthesis; add it to the parts',
  ),
}


@pytest.mark.parametrize('kind', USELESS)
def test_evaluate_refuses_intervals_that_cannot_be_measured(
  workdir, seeds, kind
):
  flags, message = USELESS[kind]
  assert_refused(evaluate(workdir, *flags), message)
  assert not seeds
  assert not (workdir / FILE).exists()


def calibrate(workdir, **changes):
  """Writes a calibration of 3 draws as `evaluate` does."""
  config = json.loads((workdir / 'config.json').read_text())['config']
  interval = {
    'factor': 1.5,
    'coverage': 0.9,
    'by_subject': {'a': 0.88, 'b': 0.92},
    'width': 80.0,
    'unit': 'HU',
    'correlation': 0.6,
    'sparsification': {},
    'ause': 0.1,
    'reason': '',
    'offered': True,
  }
  record = {
    'version': 1,
    'routes': {'pelvis_cbct_to_ct': interval | changes},
    'level': 0.9,
    'draws': 3,
    'sampling': {
      **config['sampling'],
      'slab': config.get('slab', 1),
      'draws': 1,
    },
    'steps': [2],
    'split': 'test',
    'slices': 0,
    'seed': 0,
    'store': 'runs/store',
    'fingerprint': '',
    'definition': {},
  }
  (workdir / FILE).parent.mkdir(exist_ok=True)
  (workdir / FILE).write_text(json.dumps(record))


def head():
  """HU far from the ends of the window."""
  shape = (CANVAS, CANVAS, 5)
  return np.rint(np.linspace(-700, 600, np.prod(shape))).reshape(shape)


@pytest.fixture
def source(tmp_path):
  path = tmp_path / 'inputs' / 'anna.nii.gz'
  path.parent.mkdir()
  image = nib.Nifti1Image(head().astype(np.float32), np.diag([2.0, 2, 3, 1]))
  nib.save(image, path)
  return path


def predict(workdir, source, output, *flags):
  return commands.run(
    'predict',
    f'--workdir={workdir}',
    *('-i', source, '-o', output),
    *('--source=cbct', '--target=ct', '--region=pelvis', '--noread'),
    *flags,
  )


def test_predict_writes_the_ends_on_the_grid_of_the_input(
  workdir, source, seeds, tmp_path
):
  calibrate(workdir)
  output = tmp_path / 'out' / 'ct.nii.gz'
  code, out, err = predict(workdir, source, output, '--intervals', '--seed=1')
  assert code == 0, err
  images = {
    name: nib.load(output.with_name(f'{name}.nii.gz'))
    for name in ('ct', 'ct_low', 'ct_high')
  }
  for image in images.values():
    np.testing.assert_array_equal(image.affine, nib.load(source).affine)
    assert image.get_data_dtype() == np.int16
    assert 'not for diagnosis' in image.header['descrip'].item().decode()
  # Draws 50, 100 and 150 HU brighter: mean 100, deviation 50, and the floor.
  reach = 1.5 * np.hypot(50, 10)
  for name, shift in (('ct_low', 100 - reach), ('ct_high', 100 + reach)):
    np.testing.assert_allclose(images[name].get_fdata(), head() + shift, atol=1)
  assert seeds[-3:] == [(1, 1), (2, 1), (3, 1)]
  record = json.loads(output.with_name('ct.json').read_text())['Intervals']
  assert record['Files'] == ['ct_low.nii.gz', 'ct_high.nii.gz']
  assert (record['Level'], record['Draws'], record['Factor']) == (0.9, 3, 1.5)
  assert (record['Coverage'], record['CoverageSubjects']) == (0.9, 2)
  assert record['CoverageStore'] == 'runs/store'
  assert 'The interval holds' not in err
  assert '90 % interval; it covered 90.0 % of the voxels of 2 subjects' in out


def test_a_finer_grid_than_that_of_the_model_is_a_warning(
  workdir, seeds, tmp_path
):
  calibrate(workdir)
  fine = np.repeat(np.repeat(head(), 2, 0), 2, 1).astype(np.float32)
  source = tmp_path / 'fine.nii.gz'
  nib.save(nib.Nifti1Image(fine, np.diag([1.0, 1, 3, 1])), source)
  code, _, err = predict(workdir, source, tmp_path / 'ct.nii.gz', '--intervals')
  assert code == 0, err
  warning = 'The interval holds for voxels of 2 x 2 x 3 mm'
  record = json.loads((tmp_path / 'ct.json').read_text())
  assert any(line.startswith(warning) for line in record['Warnings'])
  assert nib.load(tmp_path / 'ct_low.nii.gz').shape == fine.shape


def test_a_volume_is_finished_with_its_interval(
  workdir, source, seeds, tmp_path
):
  calibrate(workdir)
  out = tmp_path / 'out'

  def run(*flags):
    seeds.clear()
    code, _, err = predict(workdir, source.parent, out, *flags)
    assert code == 0, err
    return len(seeds), sorted(p.name for p in out.iterdir())

  plain = ['anna_ct.json', 'anna_ct.nii.gz']
  ends = ['anna_ct_high.nii.gz', 'anna_ct_low.nii.gz']
  everything = sorted(plain + ends)
  assert run() == (1, plain)
  assert run('--intervals') == (4, everything)
  assert run('--intervals') == (0, everything)
  (out / 'anna_ct_high.nii.gz').unlink()
  assert run('--intervals') == (4, everything)
  calibrate(workdir, factor=2.0)
  assert run('--intervals') == (4, everything)
  # The ends of an earlier volume do not stay beside another one.
  assert run() == (1, plain)
  (out / 'anna_ct_low.nii.gz').write_text('of somebody else')
  assert run('--overwrite') == (1, [*plain, 'anna_ct_low.nii.gz'])


def refused(workdir, source, tmp_path, *flags):
  output = tmp_path / 'out' / 'ct.nii.gz'
  result = predict(workdir, source, output, '--intervals', *flags)
  assert not output.parent.exists()
  return result


def test_predict_names_the_command_that_measures(workdir, source, tmp_path):
  (workdir / FILE).unlink(missing_ok=True)
  assert_refused(
    refused(workdir, source, tmp_path),
    f'{workdir}/{FILE}: no such file',
    f'evaluate --workdir={workdir} --intervals',
  )


def test_predict_refuses_an_interval_that_does_not_hold(
  workdir, source, tmp_path
):
  reason = 'its 90 % interval covers 80.0 % of the voxels of 2 subjects'
  calibrate(workdir, coverage=0.8, reason=reason, offered=False)
  assert_refused(
    refused(workdir, source, tmp_path),
    f'no interval of pelvis_cbct_to_ct is offered: {reason}',
  )


def test_predict_refuses_another_sampling(workdir, source, tmp_path):
  calibrate(workdir)
  assert_refused(
    refused(workdir, source, tmp_path, '--shift=9'),
    'was measured with another shift',
  )


def test_predict_refuses_intervals_of_several_runs(workdir, source, tmp_path):
  calibrate(workdir)
  assert_refused(
    refused(f'{workdir},{workdir}/.', source, tmp_path),
    '--intervals: are calibrated for one run',
  )


def test_predict_refuses_intervals_of_other_systems(
  workdir, source, tmp_path, monkeypatch
):
  system = types.SimpleNamespace(title='U-Net', routes=['pelvis_cbct_to_ct'])
  monkeypatch.setattr(prediction_runs, 'load_system', lambda workdir: system)
  assert_refused(refused(workdir, source, tmp_path), f'{workdir} is a U-Net')


def test_an_end_may_not_replace_the_input(workdir, source, tmp_path):
  calibrate(workdir)
  low = source.rename(source.with_name('ct_low.nii.gz'))
  result = predict(workdir, low, low.with_name('ct.nii.gz'), '--intervals')
  assert_refused(result, f'{low}: is the input')
