"""A run read back: how its model is computed."""

import json

import nano
import pytest
from etils.epath import Path

from synermedgen_jax.checkpoint import model as saved_model
from synermedgen_jax.inference import workdir
from synermedgen_jax.inference.workdir import Trained


@pytest.fixture
def written(tmp_path, monkeypatch):
  """Writes a workdir whose config has these values, next to a saved model."""
  params = nano.initial_params()
  monkeypatch.setattr(
    saved_model, 'load_model', lambda *_: (nano.MODEL, params)
  )

  def write(**values):
    config = {'tokenizer': 'project', 'image': nano.IMAGE, **values}
    slices = {'plane': 'axial', 'frame': 'volume', 'windows': {}}
    record = {'config': config, **slices}
    (tmp_path / 'config.json').write_text(json.dumps(record))
    return Path(tmp_path)

  return write


@pytest.mark.usefixtures('quick_compiles')
def test_a_model_is_computed_as_its_run_computed_it(written):
  compute = {'dtype': 'bfloat16', 'remat': 'full', 'attention': '', 'unroll': 2}
  found = Trained.load(written(compute=compute)).model.compute
  assert found == workdir.Compute('bfloat16', 'full', None, 2)


@pytest.mark.usefixtures('quick_compiles')
def test_an_earlier_run_is_computed_in_the_dtype_of_its_constants(written):
  assert Trained.load(written()).model.compute == nano.COMPUTE
