"""Weights folders are read as written, and a run can start from one."""

import json

import jax
import nano
import numpy as np
import pytest

from synermedgen_jax.checkpoint import weights_folder
from synermedgen_jax.checkpoint.orbax_items import CheckpointError
from synermedgen_jax.core.trees import flatten

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
