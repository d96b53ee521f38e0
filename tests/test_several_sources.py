"""One run trained with up to three sources: all commands that read it."""

import json
import re
import shutil
from pathlib import Path

import commands
import nano
import nibabel as nib
import numpy as np
import pytest
from commands import assert_refused
from store_fakes import CANVAS

from synermedgen_jax.checkpoint import orbax_items as ckpt
from synermedgen_jax.inference.volume import Synthesiser
from synermedgen_jax.inference.workdir import RunRecord, Trained
from synermedgen_jax.models import presets

pytestmark = pytest.mark.usefixtures('quick_compiles')
ROOM = {'und': 40, 'gen': 16, 'vit': 12, 'images': 4}
# Every set of sources for T1CE.
SETS = [
  'brats_t1_to_t1ce',
  'brats_t2_to_t1ce',
  'brats_flair_to_t1ce',
  'brats_t1+t2_to_t1ce',
  'brats_t1+flair_to_t1ce',
  'brats_t2+flair_to_t1ce',
  'brats_t1+t2+flair_to_t1ce',
]
PATIENT = Path(__file__).parent / 'data' / 'openms' / 'patient26'


def config(runs, **values):
  values = {'max_sources': 3, 'capacity': ROOM} | values
  return nano.stage_config('stage2', runs, **values)


@pytest.fixture(scope='module')
def run(nano_runs, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('several') / 'stage2'
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(presets.PRESETS, 'nano', lambda: nano.MODEL)
    nano.train(config(nano_runs), workdir)
  return workdir


def evaluate(workdir, *flags):
  flags = ('--parts=synthesis', '--split=val', '--slices=2', *flags)
  return commands.run('evaluate', f'--workdir={workdir}', *flags)


@pytest.fixture(scope='module')
def measured(run):
  """The run, measured with every set of sources, and what was printed."""
  code, out, err = evaluate(run, f'--routes={",".join(reversed(SETS))}')
  assert code == 0, err
  return run, out


def metrics_of(workdir):
  return json.loads((workdir / 'evaluation' / 'metrics.json').read_text())


def test_a_run_knows_the_routes_that_it_draws(run, nano_runs):
  routes = RunRecord.load(run).routes
  assert set(SETS) <= set(routes)
  # CT-MR and CBCT-CT both ways, and every set of the four contrasts.
  assert len(routes) == 2 + 2 + 12 + 12 + 4
  one = RunRecord.load(nano_runs / 'stage2').routes
  assert set(one) == {name for name in routes if '+' not in name}


def test_one_run_is_measured_with_every_set_of_sources(measured):
  workdir, out = measured
  metrics = metrics_of(workdir)
  assert list(metrics['synthesis']) == SETS  # in the order of tables
  assert metrics['summary']['routes'] == 7
  for name, score in metrics['synthesis'].items():
    assert score['count'] == 1
    assert score['baselines'].keys() == {
      'copy_source',
      'mean_target',
      'ceiling',
    }
    assert np.isfinite(score['ssim'])
    assert any(line.startswith(f'{name} ') for line in out.splitlines())
  # These baselines depend on the target alone.
  for baseline in ('mean_target', 'ceiling'):
    (_,) = {
      json.dumps(s['baselines'][baseline])
      for s in metrics['synthesis'].values()
    }
  values = {score['mae'] for score in metrics['synthesis'].values()}
  assert len(values) == 7  # each set is read


@pytest.mark.parametrize(
  ('route', 'levels'),
  [
    ('brats_t1_to_t1ce', 8),
    ('brats_t2_to_t1ce', 8),
    ('brats_flair_to_t1ce', 16),
    ('brats_t1+t2_to_t1ce', 0),
    ('brats_t1+flair_to_t1ce', 4),
    ('brats_t2+flair_to_t1ce', 12),
    ('brats_t1+t2+flair_to_t1ce', 16 / 3),
  ],
)
def test_the_copy_is_the_mean_of_the_sources(measured, route, levels):
  """In the fake store, T1, T1CE, T2 and FLAIR are 8 grey levels apart."""
  copy = metrics_of(measured[0])['synthesis'][route]['baselines']['copy_source']
  assert copy['mae'] * 65535 == pytest.approx(levels, abs=0.02)


def test_results_define_the_copy_of_several_sources(measured):
  definition = metrics_of(measured[0])['definition']['baselines']
  assert 'of several sources, the mean of' in definition['copy_source']
  assert definition.keys() == {'copy_source', 'mean_target', 'ceiling'}


def test_ordinary_routes_are_measured_by_default(run, tmp_path):
  workdir = shutil.copytree(run, tmp_path / 'stage2')
  code, _, err = evaluate(workdir, '--slices=1')
  assert code == 0, err
  names = metrics_of(workdir)['synthesis']
  assert len(names) == 2 + 12
  assert not [name for name in names if '+' in name]


def test_the_report_shows_all_sources(measured):
  workdir, _ = measured
  code, _, err = commands.run('report', f'--workdir={workdir}')
  assert code == 0, err
  page = (workdir / 'report' / 'index.html').read_text()
  for words in (
    'brain T1 (MRI) + T2 (MRI) + FLAIR (MRI) → T1CE (MRI)',
    'brats_t1+t2+flair_to_t1ce',
    'the mean of several sources',
  ):
    assert words in page


def test_runs_are_compared_by_their_number_of_sources(measured, tmp_path):
  workdir, _ = measured
  for seed in '01':
    shutil.copytree(
      workdir / 'evaluation', tmp_path / seed / 'stage2' / 'evaluation'
    )
  page = tmp_path / 'page.md'
  code, _, err = commands.run(
    'compare',
    f'--runs={tmp_path}',
    '--reference=stage2',
    f'--output={page}',
    '--resamples=20',
  )
  assert code == 0, err
  titles = re.findall(r'^## (SSIM.*)$', page.read_text(), re.MULTILINE)
  assert titles == [
    'SSIM, 22 routes (3 of them scored)',
    'SSIM, 12 BraTS routes (3 of them scored)',
    'SSIM, routes with 2 sources (3 of them scored)',
    'SSIM, routes with 3 sources (1 of them scored)',
  ]


ASKED = {
  'order': ('brats_t2+t1_to_t1ce', 'write brats_t1+t2_to_t1ce.'),
  'target': ('brats_t1+t1ce_to_t1ce', 'which needs brats_t1ce_to_t1ce'),
  'modality': ('brats_t1+t9_to_t1ce', 'which needs brats_t9_to_t1ce'),
  'twice': ('brats_t1+t1_to_t1ce', 'named twice'),
}


@pytest.mark.parametrize('kind', ASKED)
def test_a_set_that_is_no_route_is_refused(run, kind):
  name, message = ASKED[kind]
  assert_refused(evaluate(run, f'--routes={name}'), '--routes: ', message)


@pytest.mark.parametrize('field', ROOM)
def test_a_capacity_without_room_is_refused_before_training(
  nano_runs, nano_preset, tmp_path, field
):
  needed = {'und': 39, 'gen': 16, 'vit': 12, 'images': 4}[field]
  small = config(nano_runs, capacity=ROOM | {field: needed - 1})
  with pytest.raises(ValueError) as refused:  # noqa: PT011
    nano.train(small, tmp_path / 'run')
  assert str(refused.value) == (
    f'config.capacity.{field} is {needed - 1}, but an example of task '
    f"'synthesis' needs {needed}."
  )
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('before', [3, None], ids=['kept', 'older version'])
def test_a_run_does_not_resume_with_another_number_of_sources(
  run, nano_runs, nano_preset, tmp_path, before
):
  """Runs from before the key drew one source."""
  workdir = shutil.copytree(run, tmp_path / 'stage2')
  (path,) = workdir.glob('checkpoints/2/data/layout.json')
  layout, _ = json.loads(path.read_text())
  assert layout['max_sources'] == 3
  if before is None:
    del layout['max_sources']
    path.write_text(json.dumps(layout))
  now = 2 if before else 3
  with pytest.raises(
    ckpt.CheckpointError,
    match=rf'config\.max_sources {before or 1}, which is {now} now',
  ):
    nano.train(config(nano_runs, steps=4, max_sources=now), workdir)


def test_a_run_on_one_set_of_sources_trains(nano_runs, nano_preset, tmp_path):
  name = 'brats_t1+t2+flair_to_t1ce'
  nano.train(config(nano_runs, max_sources=1, routes=(name,)), tmp_path / 'run')
  assert RunRecord.load(tmp_path / 'run').routes == (name,)


def test_a_store_without_a_source_is_refused(nano_runs, nano_preset, tmp_path):
  with pytest.raises(
    ValueError,
    match=r'config\.routes: no subject to train on .* has brain_cbct\+mr_to_ct',
  ):
    nano.train(
      config(nano_runs, routes=('brain_cbct+mr_to_ct',)), tmp_path / 'run'
    )


def translate(workdir, output, *flags, source='t1,t2,flair', inputs=()):
  inputs = inputs or [PATIENT / f'{m}.nii.gz' for m in source.split(',')]
  return commands.run(
    'predict',
    f'--workdir={workdir}',
    f'--input={",".join(map(str, inputs))}',
    f'--source={source}',
    '--target=t1ce',
    '--region=brain',
    f'--output={output}',
    '--noread',
    *flags,
  )


def test_several_volumes_make_one_on_the_grid_of_the_first(run, tmp_path):
  output = tmp_path / 't1ce.nii.gz'
  code, out, err = translate(run, output)
  assert code == 0, err
  made, first = nib.load(output), nib.load(PATIENT / 't1.nii.gz')
  assert made.shape == first.shape
  np.testing.assert_allclose(made.affine, first.affine, atol=1e-5)
  assert np.isfinite(made.get_fdata()).all()
  assert 'T1CE (MRI) in a.u., 0 to 1000' in out


def test_inputs_belong_to_their_sources_in_any_order(
  run, tmp_path, monkeypatch
):
  seen = []

  def synthesise(self, route, sources, *, seed, progress):
    seen.append((route.name, sources))
    return sources[0]

  monkeypatch.setattr(Synthesiser, 'synthesise', synthesise)
  for source in ('t1,t2,flair', 'flair,t1,t2'):
    code, _, err = translate(run, tmp_path / 'out.nii.gz', source=source)
    assert code == 0, err
  (name, one), (other, two) = seen
  assert name == other == 'brats_t1+t2+flair_to_t1ce'
  assert one.shape == (3, 10, CANVAS, CANVAS)
  np.testing.assert_array_equal(one, two)
  assert np.abs(one[0] - one[1]).max() > 0.1


def moved(tmp_path, *, shape=None, affine=None):
  """T2 with another shape or affine."""
  image = nib.load(PATIENT / 't2.nii.gz')
  data = image.get_fdata(dtype=np.float32)
  path = tmp_path / 'moved.nii.gz'
  affine = image.affine if affine is None else affine
  nib.save(nib.Nifti1Image(data[:shape], affine), path)
  return path


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (
      {'shape': 60},
      'its shape differs from t1.nii.gz (60, 87, 10) and (67, 87',
    ),
    (
      {'affine': np.diag([2.0, 2, 4, 1])},
      'its affine differs from t1.nii.gz; ',
    ),
  ],
)
def test_inputs_on_two_grids_are_refused_before_the_model_is_loaded(
  run, tmp_path, monkeypatch, change, message
):
  monkeypatch.setattr(Trained, 'load', None)
  other = moved(tmp_path, **change)
  output = tmp_path / 'out' / 't1ce.nii.gz'
  result = translate(
    run, output, source='t1,t2', inputs=[PATIENT / 't1.nii.gz', other]
  )
  assert_refused(result, f'{other}: {message}', 'onto one grid first')
  assert not output.parent.exists()


T1 = PATIENT / 't1.nii.gz'


@pytest.mark.parametrize(
  ('source', 'inputs', 'flags', 'message'),
  [
    ('t1,t2', [T1], (), '--source: has 2 value(s) for 1 input(s)'),
    ('t1', [T1, T1], (), '--source: has 1 value(s) for 2 input(s)'),
    ('t1,t2', [T1, T1], ('--series=3',), '--series: has 1 value(s) for 2'),
    ('t1,t1', [T1, T1], (), 'Sources t1+t1: one of them is named twice'),
    ('t1,t1ce', [T1, T1], (), 'No route t1ce->t1ce in region brain'),
    ('t1,mr', [T1, T1], (), 'No route mr->t1ce in region brain'),
  ],
)
def test_flags_that_name_no_sources_are_refused(
  run, tmp_path, source, inputs, flags, message
):
  result = translate(
    run, tmp_path / 'o.nii.gz', *flags, source=source, inputs=inputs
  )
  assert_refused(result, message)


def test_a_set_that_was_not_trained_is_refused_unless_forced(
  nano_runs, tmp_path
):
  output = tmp_path / 't1ce.nii.gz'
  result = translate(nano_runs / 'stage2', output, source='t1,t2')
  assert_refused(result, 'was not trained on brats_t1+t2_to_t1ce, only on ')
  code, _, err = translate(
    nano_runs / 'stage2', output, '--force', source='t1,t2'
  )
  assert code == 0, err


def test_an_output_that_is_one_of_the_inputs_is_refused(run, tmp_path):
  copies = [
    shutil.copy(PATIENT / f'{m}.nii.gz', tmp_path / f'{m}.nii.gz')
    for m in ('t1', 't2')
  ]
  result = translate(run, copies[1], source='t1,t2', inputs=copies)
  assert_refused(result, f'{copies[1]}: is the input')
