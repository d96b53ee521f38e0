"""Weights folders with their card, written from a run and uploaded."""

import json

import hub_fakes
import nano
import numpy as np
import pytest
import run_files
import store_fakes
from huggingface_hub import metadata_load

from synermedgen_jax.checkpoint import weights_folder
from synermedgen_jax.core.trees import flatten
from synermedgen_jax.inference.workdir import RunRecord, Trained, WorkdirError
from synermedgen_jax.reporting import publishing
from synermedgen_jax.reporting.model_card import CardError
from synermedgen_jax.reporting.publishing import PublishError
from synermedgen_jax.slices.store import SliceStore

pytestmark = pytest.mark.usefixtures('quick_compiles')


@pytest.fixture
def workdir(tmp_path, store_path, monkeypatch):
  path = tmp_path / 'run'
  run_files.write_run(path, SliceStore.open(store_path), monkeypatch)
  return path


@pytest.fixture
def output(tmp_path):
  return tmp_path / 'weights'


def card_of(output):
  return (output / weights_folder.CARD).read_text()


def test_a_folder_has_the_model_and_the_record_without_local_names(
  workdir, output, tmp_path
):
  publishing.export(workdir, output)
  assert sorted(path.name for path in output.iterdir()) == [
    *('README.md', 'SHA256SUMS', 'config.json', 'model.json'),
    'weights.safetensors',
  ]
  for path in output.iterdir():
    content = path.read_bytes()
    assert b'somebody' not in content, path
    assert str(tmp_path).encode() not in content, path
  record = json.loads((output / 'config.json').read_text())
  assert record['step'] == 7
  assert record['config']['store'] == record['config']['init_from'] == ''
  assert record['config']['tokenizer'] == 'project'
  assert RunRecord.load(str(output)).slices == RunRecord.load(workdir).slices


def test_the_folder_is_read_as_the_run_is(workdir, output):
  publishing.export(workdir, output)
  run, folder = Trained.load(workdir), Trained.load(output)
  assert folder.model == run.model
  assert folder.geometry == run.geometry
  assert folder.routes == run.routes == ('brain_mr_to_ct',)
  assert run.steps == folder.steps == (7,)
  values = flatten(folder.params)
  for name, value in flatten(run.params).items():
    np.testing.assert_allclose(values[name], value, rtol=1e-3, atol=1e-4)


def test_a_tokenizer_of_files_comes_with_the_folder(
  tmp_path, output, monkeypatch
):
  run_files.write_run(tmp_path / 'run', None, monkeypatch, tokenizer='')
  with pytest.raises(WorkdirError, match='run: has no tokenizer'):
    publishing.export(tmp_path / 'run', output)
  assert not output.exists()
  folder = tmp_path / 'run' / 'tokenizer'
  folder.mkdir()
  (folder / 'tokenizer.json').write_text('{}')
  publishing.export(tmp_path / 'run', output)
  assert (output / 'tokenizer' / 'tokenizer.json').read_text() == '{}'
  assert 'tokenizer/tokenizer.json' in (output / 'SHA256SUMS').read_text()


def test_a_card_states_the_training_data(workdir, output):
  publishing.export(workdir, output, license='cc-by-4.0')
  header = metadata_load(output / weights_folder.CARD)
  assert header['license'] == 'cc-by-4.0'
  assert header['library_name'] == 'synermedgen-jax'
  assert header['pipeline_tag'] == 'image-to-image'
  assert 'base_model' not in header
  text = card_of(output)
  store = SliceStore.open(str(store_fakes_path(workdir)))
  assert f'fingerprint `{store.fingerprint}`' in text
  assert '| dataset `fake` | subjects: train 3, val 2, test 2, holdout 1 |' in (
    text
  )
  assert '| routes | brain_mr_to_ct |' in text
  assert f'axial, {store_fakes.CANVAS} pixels, frame `volume`' in text
  assert '| window of CT | -1000 to 1000 HU |' in text
  assert 'Not measured' in text
  assert 'Not for diagnosis' in text
  assert 'phantom' not in text.lower()
  assert (
    '--workdir=weights \\\n        -i mr.nii.gz --source=mr --target=ct' in text
  )
  assert '| jax | 0.10.2 |' in text


def store_fakes_path(workdir):
  record = json.loads((workdir / 'config.json').read_text())
  return record['config']['store']


@pytest.mark.parametrize(
  ('layouts', 'text'),
  [
    ('phantom', 'The training data are digital phantoms. Phantoms are'),
    ('phantom,csv', 'The training data are digital phantoms and other volumes'),
  ],
)
def test_phantoms_are_a_limit(workdir, output, monkeypatch, layouts, text):
  opened = SliceStore.open

  def with_layouts(path):
    store = opened(path)
    store.layouts = tuple(layouts.split(','))
    return store

  monkeypatch.setattr(SliceStore, 'open', with_layouts)
  publishing.export(workdir, output)
  assert text in card_of(output)


def test_a_store_that_is_gone_or_another_one_is_not_described(
  tmp_path, output, store_path, monkeypatch
):
  store = SliceStore.open(store_path)
  record = run_files.write_run(tmp_path / 'run', store, monkeypatch)
  for number, changed in enumerate(
    (
      {'config': {**record['config'], 'store': str(tmp_path / 'gone')}},
      {'store_fingerprint': '0' * 12},
    )
  ):
    path = tmp_path / 'run' / 'config.json'
    path.write_text(json.dumps({**record, **changed}))
    folder = tmp_path / f'w{number}'
    publishing.export(tmp_path / 'run', folder)
    text = card_of(folder)
    assert 'datasets and subjects are not known' in text
    assert 'dataset `fake`' not in text
    assert 'phantoms or patients is not known' in text


def test_a_card_has_the_measurements_with_their_definitions(workdir, output):
  run_files.write_evaluation(workdir)
  publishing.export(workdir, output)
  text = card_of(output)
  assert 'Not measured' not in text
  assert 'at step 7 on split `test` of the store `f00`: 3 subjects' in text
  assert (
    '| route | subjects | ssim | psnr | mae | unit of mae | ssim of '
    'copy_source | ssim of mean_target | difference (95 %) |\n'
    '|---|---|---|---|---|---|---|---|---|\n'
    '| brain_mr_to_ct | 3 | 0.8 | 20.5 | 91.25 | HU | 0.25 | 0.5 | '
    '+0.300 (+0.200 to +0.375) |\n' in text
  )
  assert (
    '* **ssim**: range: clipped to the window; mask: the body mask; '
    'dimension: 2-D, one map per slice; unit: 1; higher is better.' in text
  )
  assert 'Sampling: `{"points": 2}`.' in text
  assert '* **difference**: SSIM less that of the better baseline.' in text
  assert 'all voxels' not in text
  assert '* **copy_source**: the unchanged source.' in text
  assert '| brain_mr_to_ct | 319.5 | 3 |' in text
  assert 'range: HU; unit: HU; lower is better.' in text
  assert '| tia | 0.900 | 0.250 | 40 |' in text
  assert '* **tia**: task: choose; chance: one of four.' in text


@pytest.mark.parametrize(
  ('values', 'message'),
  [
    ({'steps': (5,)}, r'is of step 5, the weights are of step 7'),
    ({'sampling': {'synthesiser': 'mean'}}, r'is of mean, the weights are'),
  ],
)
def test_measurements_of_other_weights_are_refused(
  workdir, output, values, message
):
  run_files.write_evaluation(workdir, **values)
  with pytest.raises(CardError, match=message):
    publishing.export(workdir, output)
  assert not output.exists()


def test_a_stage_that_does_not_synthesise_says_so(
  tmp_path, output, store_path, monkeypatch
):
  store = SliceStore.open(store_path)
  start = 'hf://owner/base@' + '1' * 40
  run_files.write_run(
    tmp_path / 'run', store, monkeypatch, stage='gau', init_from=start
  )
  path = tmp_path / 'run' / 'config.json'
  record = json.loads(path.read_text()) | {'routes': None}
  path.write_text(json.dumps(record))
  publishing.export(tmp_path / 'run', output)
  header = metadata_load(output / weights_folder.CARD)
  assert 'pipeline_tag' not in header
  assert header['base_model'] == 'owner/base'
  assert 'It was not trained to synthesise' in card_of(output)
  assert f'| started from | {start} |' in card_of(output)
  assert 'predict' not in card_of(output).partition('## Use')[2]


def test_names_of_a_run_cannot_break_the_table(workdir, output):
  path = workdir / 'config.json'
  record = json.loads(path.read_text())
  record['versions']['a|b\n<script>'] = '1'
  path.write_text(json.dumps(record))
  publishing.export(workdir, output)
  assert '| a\\|b &lt;script> | 1 |' in card_of(output)


def test_a_license_is_an_identifier(workdir, output):
  with pytest.raises(CardError, match='expected an identifier of the hub'):
    publishing.export(workdir, output, license='my license: free')


@pytest.fixture
def hub(tmp_path):
  with hub_fakes.fake_hub(tmp_path / 'cache') as hub:
    yield hub


def test_what_is_uploaded_is_loaded_from_the_hub(workdir, output, hub):
  publishing.export(
    workdir, output, license='cc-by-4.0', repository='owner/model'
  )
  assert '# model\n' in card_of(output)
  assert '--workdir=hf://owner/model \\' in card_of(output)
  address = publishing.upload(output, 'owner/model')
  created, commit = hub.commits['owner/model']
  assert commit[1].keys() - created[1] == {p.name for p in output.iterdir()}
  assert hub.private['owner/model']
  tensors = (output / weights_folder.TENSORS).read_bytes()
  assert [*hub.objects.values()] == [tensors]
  trained = Trained.load(address)
  assert trained.model.config == nano.MODEL
  assert trained.routes == ('brain_mr_to_ct',)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (
      lambda folder: (folder / 'README.md').unlink(),
      r'README\.md: no such card; ship_weights writes it',
    ),
    (
      lambda folder: (folder / 'README.md').write_text('# A model\n'),
      r'README\.md: states no license',
    ),
    (
      lambda folder: (folder / 'README.md').write_text('---\na: [\n---\n'),
      r'README\.md: its header is not YAML',
    ),
    (
      lambda folder: (folder / 'scan.nii.gz').touch(),
      r'has scan\.nii\.gz, which is no file of a weights folder; remove it\.',
    ),
    (
      lambda folder: (folder / 'weights.safetensors').unlink(),
      r'has no weights\.safetensors',
    ),
    (
      lambda folder: (folder / 'model.json').write_text('{}'),
      r'model\.json: differs from its checksum',
    ),
  ],
)
def test_a_folder_that_is_not_as_written_is_not_uploaded(
  workdir, output, hub, change, message
):
  publishing.export(workdir, output, license='cc-by-4.0')
  change(output)
  with pytest.raises(ValueError, match=message):
    publishing.upload(output, 'owner/model')
  assert not hub.requests


def test_a_card_without_a_license_is_not_uploaded(workdir, output, hub):
  publishing.export(workdir, output)
  with pytest.raises(PublishError, match=r'states no license.* --license'):
    publishing.upload(output, 'owner/model')
  assert not hub.requests
