"""Weights folders are read as written, and a run can start from one."""

import json
import subprocess

import hub_fakes
import jax
import nano
import numpy as np
import pytest
from etils.epath import Path

from synermedgen_jax.checkpoint import weights_folder
from synermedgen_jax.checkpoint.orbax_items import CheckpointError
from synermedgen_jax.config.errors import ConfigError
from synermedgen_jax.config.model import initial_params, model_shape
from synermedgen_jax.core.trees import flatten
from synermedgen_jax.training import provenance
from synermedgen_jax.training.build import build

pytestmark = pytest.mark.usefixtures('quick_compiles')


@pytest.fixture(scope='module')
def params():
  return nano.initial_params()


def test_what_is_written_is_read(params, tmp_path):
  weights_folder.save_weights(tmp_path / 'w', nano.MODEL, params)
  model, weights = weights_folder.load_weights(tmp_path / 'w')
  assert model == nano.MODEL
  weights, params = flatten(weights), flatten(params)
  assert weights.keys() == params.keys()
  for name, value in params.items():
    np.testing.assert_allclose(weights[name], value, rtol=1e-3, atol=1e-4)
    assert weights[name].dtype == np.float32


def test_numbers_too_large_are_refused(params, tmp_path):
  large = jax.tree.map(lambda x: x + 1e6, params)
  with pytest.raises(ValueError, match='does not fit in float16'):
    weights_folder.save_weights(tmp_path / 'w', nano.MODEL, large)


def test_a_damaged_file_is_reported(params, tmp_path):
  weights_folder.save_weights(tmp_path, nano.MODEL, params)
  file = tmp_path / weights_folder.TENSORS
  file.write_bytes(file.read_bytes()[:-8])
  with pytest.raises(CheckpointError, match='damaged or truncated'):
    weights_folder.load_weights(tmp_path)


def test_a_folder_without_a_shape_is_reported(params, tmp_path):
  weights_folder.save_weights(tmp_path, nano.MODEL, params)
  (tmp_path / weights_folder.SHAPE).write_text(json.dumps({}))
  with pytest.raises(CheckpointError):
    weights_folder.load_weights(tmp_path)


def test_a_stage_starts_from_shipped_weights(
  params, tmp_path, nano_preset, quick_compiles, store_path
):
  weights_folder.save_weights(tmp_path / 'w', nano.MODEL, params)
  config = nano.config('stage1', store_path, init_from=str(tmp_path / 'w'))
  nano.train(config, tmp_path / 'run')
  assert (tmp_path / 'run' / 'metrics.jsonl').is_file()


def with_checksums(params, folder):
  weights_folder.save_weights(folder, nano.MODEL, params)
  (folder / weights_folder.CARD).write_text('card')
  weights_folder.write_checksums(folder)
  return folder / weights_folder.SUMS


def test_sha256sum_confirms_the_checksums(params, tmp_path):
  with_checksums(params, tmp_path)
  done = subprocess.run(
    ['sha256sum', '--check', weights_folder.SUMS],
    cwd=tmp_path,
    capture_output=True,
    text=True,
  )
  assert done.stdout == 'weights.safetensors: OK\nmodel.json: OK\n'
  weights_folder.load_weights(tmp_path)
  (tmp_path / weights_folder.CARD).write_text('another card')
  weights_folder.load_weights(tmp_path)


def test_a_changed_bit_is_reported(params, tmp_path):
  with_checksums(params, tmp_path)
  file = tmp_path / weights_folder.TENSORS
  content = bytearray(file.read_bytes())
  content[-1] ^= 1
  file.write_bytes(content)
  with pytest.raises(CheckpointError, match=r'safetensors: differs from its'):
    weights_folder.load_weights(tmp_path)


@pytest.mark.parametrize(
  ('line', 'message'),
  [
    (f'{"0" * 64}  config.json', r'lists config\.json, which is missing'),
    (f'{"0" * 64}  ../key', 'is no line of sha256sum'),
    ('weights.safetensors', 'is no line of sha256sum'),
  ],
)
def test_a_malformed_list_of_checksums_is_reported(
  params, tmp_path, line, message
):
  sums = with_checksums(params, tmp_path)
  sums.write_text(f'{sums.read_text()}{line}\n')
  with pytest.raises(CheckpointError, match=message):
    weights_folder.load_weights(tmp_path)


@pytest.mark.parametrize(
  ('kept', 'missing'),
  [(0, r'weights\.safetensors'), (1, r'model\.json'), (2, '')],
)
def test_a_list_that_lacks_a_file_is_reported(params, tmp_path, kept, missing):
  sums = with_checksums(params, tmp_path)
  lines = sums.read_text().splitlines(keepends=True)
  sums.write_text(''.join(lines[:kept]))
  if not missing:
    weights_folder.load_weights(tmp_path)
    return
  with pytest.raises(CheckpointError, match=f'lacks a line for {missing}; '):
    weights_folder.load_weights(tmp_path)


def test_an_unlisted_file_is_reported(params, tmp_path):
  with_checksums(params, tmp_path)
  (tmp_path / weights_folder.RECORD).write_text('{}')
  with pytest.raises(CheckpointError, match=r'lacks a line for config\.json; '):
    weights_folder.check_files(tmp_path)


@pytest.fixture
def hub(params, tmp_path):
  """A hub with the weights folder o/n."""
  folder = tmp_path / 'w'
  weights_folder.save_weights(folder, nano.MODEL, params)
  with hub_fakes.fake_hub(tmp_path / 'cache') as hub:
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    hub.commit('o/n', files | {'code.py': b'print()', 'x.pkl': b'x'})
    yield hub


def test_a_run_keeps_the_commit_with_which_it_started(
  hub, tmp_path, nano_preset, store_path
):
  config = nano.config('stage1', store_path, init_from='hf://o/n')
  config.tokenizer = 'project'
  config.model = 'init_from'

  def recorded(start):
    run = build(config)
    assert run.model.config == nano.MODEL
    provenance.keep(run.config, run.store, Path(tmp_path), start)
    record = json.loads((tmp_path / 'config.json').read_text())
    return record['config']['init_from']

  (first, files), *_ = hub.commits['o/n']
  assert recorded(0) == f'hf://o/n@{first}'
  assert not any(name in r for r in hub.requests for name in ('.py', '.pkl'))
  second = hub.commit('o/n', files)  # the branch moves
  assert recorded(1) == f'hf://o/n@{first}'
  assert recorded(0) == f'hf://o/n@{second}'


def test_a_run_starts_from_the_parameters_of_the_hub(
  hub, params, nano_preset, store_path
):
  config = nano.config('stage1', store_path, init_from='hf://o/n')
  read = flatten(initial_params(config, model_shape(config)))
  for name, value in flatten(params).items():
    np.testing.assert_allclose(read[name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
  ('files', 'message'),
  [
    ({'README.md': b''}, r'hf://o/m: has no weights\.safetensors'),
    ({'weights.safetensors': b''}, r'hf://o/m: has no model\.json'),
  ],
)
def test_a_repository_of_another_kind_is_refused(
  hub, store_path, files, message
):
  hub.commit('o/m', files)
  config = nano.config('stage1', store_path, init_from='hf://o/m')
  with pytest.raises(ConfigError, match=rf'config\.init_from: {message}'):
    build(config)


def test_a_download_is_checked_as_a_local_folder_is(hub, params, tmp_path):
  files = dict(hub.files('o/n')[1])
  files[weights_folder.SUMS] = f'{"0" * 64}  model.json\n'.encode()
  hub.commit('o/n', files)
  with pytest.raises(CheckpointError, match=r'model\.json: differs'):
    weights_folder.load_weights(weights_folder.local_folder('hf://o/n'))
