"""A run read back: how its model is computed."""

import json

import nano
import pytest
from etils.epath import Path

from synermedgen_jax.checkpoint import model as saved_model
from synermedgen_jax.core.modalities import ROUTES
from synermedgen_jax.inference import workdir
from synermedgen_jax.inference.workdir import RunRecord, Trained
from synermedgen_jax.slices.store import SliceStore
from synermedgen_jax.training.provenance import trained_routes


@pytest.fixture
def written(tmp_path, monkeypatch):
  """Writes a workdir whose config has these values, next to a saved model."""
  params = nano.initial_params()
  monkeypatch.setattr(saved_model, 'newest_step', lambda _: 7)
  monkeypatch.setattr(
    saved_model, 'load_model', lambda _, which: (nano.MODEL, params)
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
  result = Trained.load(written(compute=compute)).model.compute
  assert result == workdir.Compute('bfloat16', 'full', None, 2)


@pytest.mark.usefixtures('quick_compiles')
def test_an_earlier_run_is_computed_in_the_dtype_of_its_constants(written):
  assert Trained.load(written()).model.compute == nano.COMPUTE


@pytest.mark.usefixtures('quick_compiles')
def test_a_run_keeps_the_routes_that_it_was_trained_on(written):
  workdir_path = written()
  assert RunRecord.load(workdir_path).routes is None
  path = workdir_path / 'config.json'
  record = json.loads(path.read_text()) | {'routes': ['brain_mr_to_ct']}
  path.write_text(json.dumps(record))
  assert RunRecord.load(workdir_path).routes == ('brain_mr_to_ct',)
  trained = Trained.load(workdir_path)
  assert trained.routes == ('brain_mr_to_ct',)
  assert trained.steps == (7,)


@pytest.mark.parametrize('content', ['[]', '{', '{"config": 3}', '\xff'])
def test_a_file_that_is_not_the_config_of_a_run_is_named(tmp_path, content):
  (tmp_path / 'config.json').write_text(content, 'latin-1')
  with pytest.raises(workdir.WorkdirError, match='is not the config of a run'):
    RunRecord.load(tmp_path)


BRATS = [r.name for r in ROUTES if r.cohort == 'brats']


@pytest.mark.parametrize(
  ('changes', 'routes'),
  [
    (
      {},
      sorted(
        [
          'brain_ct_to_mr',
          'brain_mr_to_ct',
          'pelvis_cbct_to_ct',
          'pelvis_ct_to_cbct',
          *BRATS,
        ]
      ),
    ),
    ({'routes': ['brain_mr_to_ct']}, ['brain_mr_to_ct']),
    ({'tasks': {'mi': 1.0}}, None),
    ({'tasks': {'synthesis': 0.5, 'editing': 0.5}}, None),
  ],
)
def test_the_routes_of_a_run_are_those_of_its_training_subjects(
  store_path, changes, routes
):
  config = {'tasks': {'synthesis': 1.0}, 'routes': []} | changes
  store = SliceStore.open(str(store_path))
  assert trained_routes(config, store) == routes
  assert trained_routes(config, None) is None
