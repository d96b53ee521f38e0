"""The command predict: a volume in, a volume on the same grid out."""

import json
import shutil
from pathlib import Path

import commands
import nibabel as nib
import numpy as np
import pytest
from commands import assert_refused
from PIL import Image
from scipy import ndimage
from store_fakes import CANVAS

from synermedgen_jax.core.modalities import Modality
from synermedgen_jax.inference import prediction
from synermedgen_jax.inference.reading import Reading
from synermedgen_jax.inference.volume import Synthesiser
from synermedgen_jax.inference.workdir import Trained
from synermedgen_jax.slices.volumes import Volume

pytestmark = pytest.mark.usefixtures('quick_compiles')
CBCT, CT, PET = Modality.CBCT, Modality.CT, Modality.PET
T1 = Path(__file__).parent / 'data' / 'openms' / 'patient26' / 't1.nii.gz'


def predict(workdir, source, output, *flags, route=('cbct', 'ct', 'pelvis')):
  return commands.run(
    'predict',
    f'--workdir={workdir}',
    f'--input={source}',
    f'--output={output}',
    f'--source={route[0]}',
    f'--target={route[1]}',
    f'--region={route[2]}',
    '--noread',
    *flags,
  )


def write(path, data, affine=None):
  affine = np.diag([2.0, 2, 3, 1]) if affine is None else affine
  nib.save(nib.Nifti1Image(data, affine), path)
  return path


def head(shape=(CANVAS, CANVAS, 5)):
  """HU that differ at every voxel, some of them beyond the window."""
  return np.rint(np.linspace(-1400, 1900, np.prod(shape))).reshape(shape)


@pytest.fixture
def source(tmp_path):
  return write(tmp_path / 'cbct.nii.gz', head().astype(np.float32))


@pytest.fixture
def output(tmp_path):
  return tmp_path / 'out' / 'ct.nii.gz'


@pytest.fixture
def copies(monkeypatch):
  """A model that makes each target slice the very source slice."""

  def synthesise(self, route, sources, *, seed, progress):
    progress(sources.shape[1])
    return sources[0]

  monkeypatch.setattr(Synthesiser, 'synthesise', synthesise)


# Column vectors: where a step along each axis of the array leads.
AXES = {
  'RAS': [(2, 0, 0), (0, 2, 0), (0, 0, 3)],
  'LPS': [(-2, 0, 0), (0, -2, 0), (0, 0, 3)],
}


@pytest.mark.parametrize('axes', AXES)
def test_hu_come_back_where_they_were(
  nano_runs, tmp_path, output, copies, axes
):
  affine = np.eye(4)
  affine[:3, :3] = np.array(AXES[axes], float).T
  affine[:3, 3] = (-7, 11, 5)
  source = write(tmp_path / 'cbct.nii.gz', head().astype(np.float32), affine)
  code, out, err = predict(nano_runs / 'stage2', source, output)
  assert code == 0, err
  result = nib.load(output)
  np.testing.assert_array_equal(result.affine, affine)
  # The model's slices are the volume's own pixels, so only the window cuts.
  np.testing.assert_allclose(
    result.get_fdata(), head().clip(-1000, 1000), atol=0.01
  )
  assert out == (
    f'{output}: CT in HU, -1000 to 1000, shape ({CANVAS}, {CANVAS}, 5).\n'
    f'{output}\n'
  )


def test_axial_slices_are_found_in_any_order_of_axes(
  nano_runs, tmp_path, output, copies
):
  # The second axis runs upwards: CANVAS slices of CANVAS x 5 pixels.
  affine = np.eye(4)
  affine[:3, :3] = np.array([(0, 2, 0), (0, 0, 2), (2, 0, 0)], float).T
  source = write(tmp_path / 'cbct.nii.gz', head().astype(np.float32), affine)
  code, _, err = predict(nano_runs / 'stage2', source, output)
  assert code == 0, err
  result = nib.load(output)
  np.testing.assert_array_equal(result.affine, affine)
  # Five pixels lie half a pixel off the centres of a canvas of sixteen: a mean
  # of neighbours along the last axis, whose values differ by little.
  step = head()[0, 0, 1] - head()[0, 0, 0]
  error = result.get_fdata() - head().clip(-1000, 1000)
  assert np.abs(error).max() <= 0.5 * step + 0.01


REAL = sorted((Path(__file__).parent / 'data').glob('*/*/*.nii.gz'))


@pytest.mark.parametrize(
  'path', REAL, ids=lambda p: f'{p.parent.name}-{p.stem}'
)
def test_a_place_in_a_real_volume_stays_within_half_a_voxel(
  nano_runs, tmp_path, output, copies, path
):
  image = nib.load(path)
  shape, sides = np.array(image.shape), image.header.get_zooms()
  centre = (0.42 * shape).round()
  away = [
    (i - c) * side
    for i, c, side in zip(np.indices(shape), centre, sides, strict=True)
  ]
  # Wider than a pixel of the model, of which a slice has sixteen.
  width = 1.5 * max(shape * sides) / CANVAS
  ball = np.exp(-sum(d**2 for d in away) / width**2)
  source = write(
    tmp_path / 'cbct.nii.gz',
    (1600 * ball - 800).astype(np.float32),
    image.affine,
  )
  code, _, err = predict(nano_runs / 'stage2', source, output)
  assert code == 0, err
  made = nib.load(output)
  np.testing.assert_allclose(made.affine, image.affine, atol=1e-5)
  moved = [
    ndimage.center_of_mass(np.clip(x.get_fdata() + 200, 0, None))
    for x in (made, nib.load(source))
  ]
  assert np.abs(np.subtract(*moved)).max() < 0.5


def test_the_plane_of_the_store_is_that_of_the_model(
  nano_runs, output, tmp_path, monkeypatch
):
  seen = []

  def synthesise(self, route, sources, *, seed, progress):
    seen.append(sources[0].shape)
    return sources[0]

  monkeypatch.setattr(Synthesiser, 'synthesise', synthesise)
  workdir = shutil.copytree(nano_runs / 'stage2', tmp_path / 'stage2')
  record = json.loads((workdir / 'config.json').read_text())
  assert record['plane'] == 'axial'
  (workdir / 'config.json').write_text(
    json.dumps(record | {'plane': 'coronal'})
  )
  data = np.linspace(-900, 900, 16 * 7 * 12).reshape(16, 7, 12)
  source = write(tmp_path / 'cbct.nii.gz', data.astype(np.float32))
  code, _, err = predict(workdir, source, output)
  assert code == 0, err
  assert seen == [(7, CANVAS, CANVAS)]  # of the second axis, which is to A
  assert nib.load(output).shape == (16, 7, 12)


def test_the_frame_of_the_store_is_that_of_the_model(
  nano_runs, output, tmp_path, monkeypatch
):
  seen = []

  def synthesise(self, route, sources, *, seed, progress):
    seen.append(sources[0])
    return sources[0]

  monkeypatch.setattr(Synthesiser, 'synthesise', synthesise)
  workdir = shutil.copytree(nano_runs / 'stage2', tmp_path / 'stage2')
  record = json.loads((workdir / 'config.json').read_text())
  assert record['frame'] == 'volume'
  (workdir / 'config.json').write_text(json.dumps(record | {'frame': 'body'}))
  data = np.full((4 * CANVAS, 3 * CANVAS, 5), -1000, np.float32)
  data[4 : 4 + CANVAS, 9 : 9 + CANVAS] = 100
  source = write(tmp_path / 'cbct.nii.gz', data)
  code, _, err = predict(workdir, source, output)
  assert code == 0, err
  assert (seen[0][:, 2:-2, 2:-2] > 0).all()  # nearly all of it is body
  made = nib.load(output).get_fdata()
  assert made.shape == data.shape
  inside = np.s_[7 : 1 + CANVAS, 12 : 6 + CANVAS]
  np.testing.assert_allclose(made[inside], 100, atol=1)
  # Air where the frame does not reach.
  assert (made[4 + CANVAS + 6 :] == -1000).all()
  assert (made[:, 9 + CANVAS + 6 :] == -1000).all()


def test_the_windows_of_the_store_are_those_of_the_model(
  nano_runs, source, output, copies, tmp_path
):
  workdir = shutil.copytree(nano_runs / 'stage2', tmp_path / 'stage2')
  record = json.loads((workdir / 'config.json').read_text())
  assert record['windows']['ct'] == {'low': -1000.0, 'high': 1000.0}
  record['windows']['ct'] = {'low': -1000.0, 'high': 3000.0}
  (workdir / 'config.json').write_text(json.dumps(record))
  code, out, err = predict(workdir, source, output)
  assert code == 0, err
  # The copied CBCT spans -1000 to 1000, and means other HU as a CT.
  expected = (head().clip(-1000, 1000) + 1000) * 2 - 1000
  np.testing.assert_allclose(nib.load(output).get_fdata(), expected, atol=0.02)
  assert 'CT in HU, -1000 to 3000' in out


def test_a_real_volume_keeps_its_grid_and_has_the_scale_asked(
  nano_runs, tmp_path
):
  output = tmp_path / 'flair.nii.gz'
  flags = ['--low=-20', '--high=300', '--points=3']
  route = ('t1', 'flair', 'brain')
  code, out, err = predict(
    nano_runs / 'stage2', T1, output, *flags, route=route
  )
  assert code == 0, err
  result, given = nib.load(output), nib.load(T1)
  assert result.shape == given.shape == (67, 87, 10)
  np.testing.assert_allclose(result.affine, given.affine, atol=1e-5)
  for code_of in ('sform_code', 'qform_code'):
    assert result.header[code_of] == given.header[code_of]
  values = result.get_fdata()
  assert np.isfinite(values).all()
  assert -20 <= values.min() < values.max() <= 300
  assert 'FLAIR (MRI) in a.u., -20 to 300' in out


def test_a_model_makes_hu_and_a_seed_fixes_them(nano_runs, source, tmp_path):
  made = []
  for name, seed in (('a', 1), ('b', 1), ('c', 2)):
    output = tmp_path / f'{name}.nii'
    code, _, err = predict(
      nano_runs / 'stage2', source, output, f'--seed={seed}'
    )
    assert code == 0, err
    made.append(nib.load(output).get_fdata())
  assert made[0].shape == (CANVAS, CANVAS, 5)
  assert -1000 <= made[0].min() < made[0].max() <= 1000
  np.testing.assert_array_equal(made[0], made[1])
  assert (made[0] != made[2]).any()


def test_a_text_about_the_source_changes_the_output(
  nano_runs, source, tmp_path
):
  made = []
  for name, flags in (
    ('plain', []),
    ('described', ['--describe_first', '--describe_tokens=5']),
  ):
    output = tmp_path / f'{name}.nii'
    code, _, err = predict(nano_runs / 'stage2', source, output, *flags)
    assert code == 0, err
    made.append(nib.load(output).get_fdata())
  assert np.isfinite(made[1]).all()
  assert (made[0] != made[1]).any()


def test_a_length_without_a_text_is_refused(nano_runs, source, output):
  result = predict(nano_runs / 'stage2', source, output, '--describe_tokens=5')
  assert_refused(result, '--describe_tokens: has no effect without')
  assert not output.parent.exists()


def nan(path):
  data = head().astype(np.float32)
  data[1, 2, 3] = np.nan
  return write(path, data)


def cut(path):
  write(path, head().astype(np.float32))
  path.write_bytes(path.read_bytes()[:500])
  return path


INPUTS = {
  'missing': (lambda path: path, 'no such file'),
  'series': (
    lambda path: write(path, np.ones((4, 4, 4, 2), np.float32)),
    'has shape (4, 4, 4, 2), expected one 3-D volume',
  ),
  'nan': (nan, '1 of 1280 voxels are NaN or infinite'),
  'cut': (cut, 'cannot be read'),
  'empty': (
    lambda path: write(path, np.zeros((4, 4, 4), np.float32)),
    'is empty, every voxel is 0',
  ),
}


@pytest.mark.parametrize('kind', INPUTS)
def test_a_bad_input_is_named_and_nothing_is_written(
  nano_runs, tmp_path, output, kind
):
  make, message = INPUTS[kind]
  source = make(tmp_path / 'source.nii.gz')
  result = predict(nano_runs / 'stage2', source, output)
  assert_refused(result, f'Error: {source}: ', message)
  assert not output.parent.exists()


ASKED = {
  'modality': (('ct', 'xray', 'brain'), [], "Unknown modality 'xray'"),
  'region': (('mr', 'ct', 'knee'), [], "Unknown region 'knee'"),
  'route': (('ct', 'pet', 'brain'), [], 'No route ct->pet in region brain'),
  'itself': (('ct', 'ct', 'brain'), [], 'No route ct->ct in region brain'),
  'scale': (('ct', 'mr', 'brain'), ['--low=5', '--high=5'], 'low < high'),
}


@pytest.mark.parametrize('kind', ASKED)
def test_what_no_route_makes_is_refused(nano_runs, source, output, kind):
  route, flags, message = ASKED[kind]
  result = predict(nano_runs / 'stage2', source, output, *flags, route=route)
  assert_refused(result, message)
  assert not output.parent.exists()


def test_an_output_that_is_not_nifti_is_refused(nano_runs, source, tmp_path):
  output = tmp_path / 'ct.mha'
  result = predict(nano_runs / 'stage2', source, output)
  assert_refused(result, f'--output {output}: expected a name ending in .nii')
  assert not output.exists()


def test_an_untrained_route_is_refused_before_the_model_is_loaded(
  nano_runs, source, output, copies, monkeypatch
):
  with monkeypatch.context() as patch:
    patch.setattr(Trained, 'load', None)
    result = predict(
      nano_runs / 'stage2', source, output, route=('cbct', 'ct', 'brain')
    )
  assert_refused(
    result,
    f'{nano_runs}/stage2: was not trained on brain_cbct_to_ct, only on ',
    'brain_ct_to_mr, brain_mr_to_ct, ',
    'pelvis_cbct_to_ct',
    '--force',
  )
  assert not output.parent.exists()
  code, _, err = predict(
    nano_runs / 'stage2',
    source,
    output,
    '--force',
    route=('cbct', 'ct', 'brain'),
  )
  assert code == 0, err


def test_a_run_that_does_not_know_its_routes_is_used_with_a_note(
  nano_runs, source, output, copies, tmp_path
):
  run = tmp_path / 'run'
  shutil.copytree(nano_runs / 'stage2', run)
  record = json.loads((run / 'config.json').read_text())
  assert 'brain_mr_to_ct' in record.pop('routes')
  (run / 'config.json').write_text(json.dumps(record))
  code, _, err = predict(run, source, output, route=('cbct', 'ct', 'brain'))
  assert code == 0, err
  assert f'{run}: the routes on which it was trained are not known' in err


def test_values_of_another_modality_are_refused_unless_forced(
  nano_runs, source, output, copies
):
  result = predict(
    nano_runs / 'stage2', source, output, route=('mr', 'ct', 'brain')
  )
  assert_refused(
    result, f'Error: {source}: as MRI: ', 'possibly a CT', '--force'
  )
  code, _, err = predict(
    nano_runs / 'stage2',
    source,
    output,
    '--force',
    route=('mr', 'ct', 'brain'),
  )
  assert code == 0, err


OUTPUTS = {
  'the input': (lambda folder: folder / 'cbct.nii.gz', 'is the input'),
  'a link to it': (lambda folder: link(folder), 'is the input'),
  'a folder': (lambda folder: folder / 'folder.nii.gz', 'is a folder'),
  'below a file': (lambda folder: folder / 'file/o.nii.gz', 'is not a folder'),
  'too long': (lambda folder: folder / f'{"o" * 250}.nii.gz', 'has 257 bytes'),
}


def link(folder):
  path = folder / 'link.nii.gz'
  path.symlink_to(folder / 'cbct.nii.gz')
  return path


@pytest.mark.parametrize('kind', OUTPUTS)
def test_an_output_that_cannot_be_written_is_refused_before_any_work(
  nano_runs, source, tmp_path, kind, monkeypatch
):
  (tmp_path / 'folder.nii.gz').mkdir()
  (tmp_path / 'file').touch()
  path, reason = OUTPUTS[kind]
  output = path(tmp_path)
  before = {p: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
  monkeypatch.setattr(Trained, 'load', None)
  result = predict(nano_runs / 'stage2', source, output)
  assert_refused(result, f'Error: {output}: ', reason)
  after = {p: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
  assert after == before


def test_an_unknown_modality_may_be_one_of_a_project(nano_runs, source, output):
  result = predict(
    nano_runs / 'stage2', source, output, route=('swi', 'ct', 'brain')
  )
  assert_refused(result, "Unknown modality 'swi'", '--modules')


def test_a_stage_that_does_not_synthesise_is_refused(nano_runs, source, output):
  result = predict(nano_runs / 'stage1', source, output)
  assert_refused(result, 'stage gau does not train synthesis')
  assert not output.parent.exists()


def test_a_failure_leaves_an_earlier_output_and_nothing_else(
  nano_runs, source, output, monkeypatch
):
  output.parent.mkdir()
  earlier = nib.Nifti1Image(np.zeros((2, 2, 2), np.int16), np.eye(4))
  earlier.header['descrip'] = b'Synthetic CT'
  nib.save(earlier, output)
  content = output.read_bytes()

  def full(image, path):
    Path(path).write_bytes(b'half')
    raise OSError('no space left on device')

  monkeypatch.setattr(nib, 'save', full)
  result = predict(nano_runs / 'stage2', source, output)
  assert result[0] == 1
  assert result[2].splitlines()[-1] == (
    f'Error: {output}: cannot be written (no space left on device).'
  )
  assert [path.name for path in output.parent.iterdir()] == [output.name]
  assert output.read_bytes() == content


def test_several_runs_give_the_mean_of_their_volumes(nano_runs, tmp_path):
  stage2 = nano_runs / 'stage2'
  other = tmp_path / 'other'
  shutil.copytree(stage2, other)
  config = json.loads((other / 'config.json').read_text())
  config['config']['sampling']['points'] = 4
  (other / 'config.json').write_text(json.dumps(config))
  data = {}
  for name, workdir in (
    ('one', stage2),
    ('other', other),
    ('both', f'{stage2},{other}'),
  ):
    output = tmp_path / f'{name}.nii.gz'
    route = ('t1', 'flair', 'brain')
    code, _, err = predict(workdir, T1, output, route=route)
    assert code == 0, err
    data[name] = nib.load(output).get_fdata(dtype=np.float32)
  assert np.abs(data['one'] - data['other']).max() > 1
  np.testing.assert_allclose(
    data['both'], (data['one'] + data['other']) / 2, atol=0.1
  )


@pytest.fixture
def plausible(monkeypatch):
  """The ramps of these tests are no bodies."""
  monkeypatch.setattr(prediction, 'implausible', lambda *_: [])


def record(output):
  return json.loads(output.with_name('ct.json').read_text())


def test_a_ct_is_whole_hu_and_says_that_it_is_synthetic(
  nano_runs, source, output, copies, plausible
):
  code, _, err = predict(nano_runs / 'stage2', source, output, '--seed=3')
  assert code == 0, err
  image = nib.load(output)
  assert image.get_data_dtype() == np.int16
  assert image.header['descrip'].item().decode() == (
    'Synthetic CT, not for diagnosis; SynerMedGen'
  )
  written = record(output)
  assert written['Synthetic'] is True
  assert written['Modality'] == 'CT'
  assert written['Units'] == 'HU'
  assert written['Sources'] == [str(source)]
  assert written['SourceModalities'] == ['CBCT']
  assert written['Route'] == 'pelvis_cbct_to_ct'
  assert written['Seed'] == 3
  (checkpoint,) = written['Checkpoints']
  assert checkpoint['Workdir'] == f'{nano_runs}/stage2'
  assert checkpoint['Steps'] == [2]
  assert written['Sampling'][0]['points'] == 2
  assert written['Warnings'] == []


def test_a_preview_lies_beside_the_output(nano_runs, source, output, copies):
  code, _, err = predict(nano_runs / 'stage2', source, output, '--preview')
  assert code == 0, err
  assert Image.open(output.with_name('ct.png')).format == 'PNG'


def reads(monkeypatch, *readings):
  """A model that reads these votes, one after the other."""
  remaining = list(readings)

  def read(trained, volume, claimed, **options):
    return Reading(remaining.pop(0), 16)

  monkeypatch.setattr(prediction, 'read_modality', read)
  monkeypatch.setattr(prediction, 'read_slices', read)
  monkeypatch.setattr(prediction, 'ask_about_pair', lambda *_, **__: {})


def test_a_source_of_another_family_is_refused_unless_forced(
  nano_runs, source, output, copies, plausible, monkeypatch
):
  reads(monkeypatch, {PET: 14, CT: 2})
  run = nano_runs / 'stage2'
  assert_refused(
    predict(run, source, output, '--read'),
    f'{source}: stated as CBCT, but the model reads PET in 14, CT in 2 of 16 '
    'slices. Name its modality with --source, or translate it anyway with '
    '--force.',
  )
  assert not output.exists()
  reads(monkeypatch, {PET: 14, CT: 2}, {CT: 16})
  code, _, err = predict(run, source, output, '--read', '--force')
  assert code == 0, err
  warning = (
    f'{source}: stated as CBCT, but the model reads PET in 14, CT in 2 of 16 '
    'slices.'
  )
  assert f'Warning: {warning}' in err.splitlines()
  written = record(output)
  assert written['Warnings'] == [warning]
  assert written['Reading'] == {
    'Sources': {'CBCT': {'Slices': 16, 'Votes': {'PET': 14, 'CT': 2}}},
    'Output': {'Slices': 16, 'Votes': {'CT': 16}},
  }


def test_values_that_no_body_has_are_a_warning(
  nano_runs, source, output, copies
):
  code, _, err = predict(nano_runs / 'stage2', source, output)
  assert code == 0, err
  # The body of the ramp is -500 to 1900 HU, its bone 150 to 1900 HU:
  # 1750 / 2400.
  assert any(
    line.startswith(
      'Warning: The synthetic CT: share of bone in the body: 0.729'
    )
    and line.endswith(', expected 0.01 to 0.4')
    for line in err.splitlines()
  ), err


def test_an_output_that_looks_like_something_else_has_a_warning(
  nano_runs, source, output, copies, plausible, monkeypatch
):
  reads(monkeypatch, {CBCT: 16}, {PET: 9, CT: 7})
  code, _, err = predict(nano_runs / 'stage2', source, output, '--read')
  assert code == 0, err
  assert record(output)['Warnings'] == [
    'The synthetic CT does not look like one: the model reads PET in 9, CT in '
    '7 of 16 slices.'
  ]


def test_an_output_that_is_shifted_has_a_warning(
  nano_runs, tmp_path, output, plausible, monkeypatch
):
  """A box of 32 x 40 x 24 mm that moves by 10 mm along y."""
  data = np.full((48, 48, 24), -1000.0, np.float32)
  data[12:28, 10:30, 6:18] = 40
  data[16:20, 14:20, 8:12] = 700
  source = write(tmp_path / 'cbct.nii.gz', data, np.diag([2.0, 2, 2, 1]))

  def shifted(trained, volumes, *_, **__):
    (volume,) = volumes.values()
    return Volume(np.roll(volume.data, 5, 1), volume.affine)

  monkeypatch.setattr(prediction, 'translate', shifted)
  code, _, err = predict(nano_runs / 'stage2', source, output)
  assert code == 0, err
  assert record(output)['Warnings'] == [
    'The synthetic CT appears to be 10 mm anterior of the CBCT.'
  ]


def test_the_real_model_reads_and_is_asked(nano_runs, source, output, copies):
  """A model of two steps answers nothing legible, which doubts nothing."""
  code, _, err = predict(nano_runs / 'stage2', source, output, '--read')
  assert code == 0, err
  written = record(output)
  assert written['Reading']['Sources']['CBCT']['Slices'] == 16
  assert written['Reading']['Output']['Slices'] == 16
  assert written['Match']['TIA']['Asked'] == 16
  assert written['Match']['TIA']['Chance'] == 0.25


@pytest.fixture
def several(tmp_path):
  """A folder of two CBCTs, one volume that is cut off, and a mask."""
  folder = tmp_path / 'several'
  folder.mkdir()
  for name in ('a', 'b', 'c', 'a_seg'):
    write(folder / f'{name}.nii.gz', head().astype(np.float32))
  cut(folder / 'c.nii.gz')
  return folder


def test_a_folder_is_predicted_and_resumed(
  nano_runs, several, tmp_path, copies, monkeypatch
):
  run, outputs = nano_runs / 'stage2', tmp_path / 'outputs'
  loads = []
  load = Trained.load
  monkeypatch.setattr(
    Trained, 'load', lambda workdir: loads.append(workdir) or load(workdir)
  )
  code, out, err = predict(run, several, outputs)
  assert code == 1
  assert loads == [str(run)]  # once for all volumes
  lines = err.splitlines()
  assert lines[0] == (
    f'Skipped {several}/a_seg.nii.gz: is a mask or a label by its name.'
  )
  assert any(
    line.startswith(f'c: {several}/c.nii.gz: cannot be read') for line in lines
  )
  assert lines[-1] == (
    'Error: 1 of 3 volumes are not predicted: c; the lines above give the '
    'reasons.'
  )
  assert sorted(p.name for p in outputs.iterdir()) == [
    *('a_ct.json', 'a_ct.nii.gz', 'b_ct.json', 'b_ct.nii.gz'),
  ]
  # As an interruption between the volume and its record leaves it.
  (outputs / 'b_ct.json').unlink()
  kept = (outputs / 'a_ct.nii.gz').stat().st_mtime_ns
  write(several / 'c.nii.gz', head().astype(np.float32))
  code, out, err = predict(run, several, outputs)
  assert code == 0, err
  assert (outputs / 'a_ct.nii.gz').stat().st_mtime_ns == kept
  assert out.splitlines() == [
    '2 of 3: b',
    f'{outputs}/b_ct.nii.gz: CT in HU, -1000 to 1000, shape (16, 16, 5).',
    '3 of 3: c',
    f'{outputs}/c_ct.nii.gz: CT in HU, -1000 to 1000, shape (16, 16, 5).',
    '1 of 3 volumes are finished with these settings and are kept; --overwrite '
    'predicts them again.',
    str(outputs),
  ]
  # Other settings predict again.
  code, out, err = predict(run, several, outputs, '--seed=1')
  assert code == 0, err
  assert record_seeds(outputs) == [1, 1, 1]


def test_another_volume_of_the_name_is_predicted_again(
  nano_runs, several, tmp_path, copies
):
  (several / 'c.nii.gz').unlink()
  run, outputs = nano_runs / 'stage2', tmp_path / 'outputs'
  assert predict(run, several, outputs)[0] == 0
  write(several / 'b.nii.gz', head()[::-1].astype(np.float32))
  code, out, err = predict(run, several, outputs)
  assert code == 0, err
  assert '1 of 2 volumes are finished' in out
  np.testing.assert_array_equal(
    nib.load(outputs / 'b_ct.nii.gz').get_fdata(),
    head()[::-1].clip(-1000, 1000),
  )


def test_an_acquired_volume_is_never_replaced(nano_runs, tmp_path, copies):
  folder = tmp_path / 'flat'
  folder.mkdir()
  for name in ('p1_cbct', 'p1_ct'):
    write(folder / f'{name}.nii.gz', head().astype(np.float32))
  acquired = (folder / 'p1_ct.nii.gz').read_bytes()
  run = nano_runs / 'stage2'
  assert_refused(
    predict(run, folder, folder, '--dataset=flat'),
    f'--output {folder}: is the input folder',
  )
  target = folder / 'p1_ct.nii.gz'
  assert_refused(
    predict(run, folder / 'p1_cbct.nii.gz', target, '--overwrite'),
    f'{target}: exists and is not a synthetic volume',
  )
  assert target.read_bytes() == acquired
  target.unlink()
  record = folder / 'p1_ct.json'
  record.write_text('{"EchoTime": 0.1}')
  assert_refused(
    predict(run, folder / 'p1_cbct.nii.gz', target),
    f'{record}: exists and is no record of `predict`',
  )
  assert record.read_text() == '{"EchoTime": 0.1}'


def test_an_earlier_picture_does_not_stay_beside_a_new_volume(
  nano_runs, source, output, copies
):
  run, picture = nano_runs / 'stage2', output.with_name('ct.png')
  assert predict(run, source, output, '--preview')[0] == 0
  assert record(output)['Files'] == ['ct.png']
  assert predict(run, source, output)[0] == 0
  assert not picture.exists()
  picture.write_bytes(b'of the user')  # its record does not name it
  assert predict(run, source, output)[0] == 0
  assert picture.read_bytes() == b'of the user'


def test_a_bad_row_and_a_name_with_a_folder_are_faults(
  nano_runs, source, tmp_path, copies
):
  table = tmp_path / 'table.csv'
  table.write_text(
    'subject,modality,path,region\n'
    'anna,cbct,cbct.nii.gz,pelvis\n'
    '../bert,cbct,cbct.nii.gz,pelvis\n'
    'carl,cbct,nowhere.nii.gz,pelvis\n'
  )
  outputs = tmp_path / 'outputs'
  code, _, err = commands.run(
    'predict',
    f'--workdir={nano_runs}/stage2',
    *('-i', table, '-o', outputs),
    *('--source=cbct', '--target=ct', '--noread'),
  )
  assert code == 1
  lines = err.splitlines()
  assert f'{table}:4: {tmp_path}/nowhere.nii.gz: no such file.' in lines[0]
  assert lines[1] == (
    'Skipped ../bert: is no name of a file; rename the subject.'
  )
  assert lines[-1] == (
    'Error: 2 faults of the input, listed above; the other 1 volumes are '
    'predicted.'
  )
  assert [p.name for p in tmp_path.rglob('*_ct.nii.gz')] == ['anna_ct.nii.gz']


def test_a_run_is_named_once(nano_runs, source, output):
  run = nano_runs / 'stage2'
  assert_refused(
    predict(f'{run},{run}', source, output), '--workdir: names a run twice'
  )


def record_seeds(folder):
  return [json.loads(p.read_text())['Seed'] for p in folder.glob('*.json')]


def test_a_table_names_region_and_modalities(
  nano_runs, source, tmp_path, copies
):
  table = tmp_path / 'table.csv'
  table.write_text(
    'subject,modality,path,region\n'
    'anna,cbct,cbct.nii.gz,pelvis\n'
    'bert,mr,cbct.nii.gz,pelvis\n'
  )
  outputs = tmp_path / 'outputs'
  code, _, err = commands.run(
    'predict',
    f'--workdir={nano_runs}/stage2',
    *('-i', table, '-o', outputs),
    *('--source=cbct', '--target=ct', '--noread'),
  )
  assert code == 0, err
  assert err.splitlines()[0] == 'Skipped bert: has no cbct.'
  np.testing.assert_array_equal(
    nib.load(outputs / 'anna_ct.nii.gz').get_fdata(), head().clip(-1000, 1000)
  )


def test_an_empty_folder_names_the_layouts(nano_runs, tmp_path):
  folder = tmp_path / 'inputs'
  (folder / 'anna').mkdir(parents=True)
  write(folder / 'anna' / 'cbct.nii.gz', head().astype(np.float32))
  assert_refused(
    predict(nano_runs / 'stage2', folder, tmp_path / 'out'),
    f'{folder}: has no volume to predict from.',
    'anna/cbct.nii.gz',
    '--dataset: folder, flat, nnunet, bids',
  )
  code, _, err = predict(
    nano_runs / 'stage2', folder, tmp_path / 'out', '--dataset=folder'
  )
  assert code == 0, err
  assert (tmp_path / 'out' / 'anna_ct.nii.gz').is_file()


def test_the_earlier_name_still_works(nano_runs, source, output, copies):
  code, _, err = commands.run(
    'translate',
    f'--workdir={nano_runs}/stage2',
    f'--input={source}',
    *('--source=cbct', '--target=ct', '--region=pelvis', '--noread'),
    f'--output={output}',
  )
  assert code == 0, err
  assert output.is_file()
