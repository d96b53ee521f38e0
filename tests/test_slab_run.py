"""One run trained with slabs of three slices, and the commands that read it."""

import json

import commands
import nano
import numpy as np
import pytest
from commands import assert_refused

from synermedgen_jax.config.errors import ConfigError
from synermedgen_jax.inference.workdir import Trained
from synermedgen_jax.models import presets
from synermedgen_jax.training.build import build

pytestmark = pytest.mark.usefixtures('quick_compiles')
ROOM = {'und': 64, 'gen': 24, 'vit': 12, 'images': 6}


def config(runs, **values):
  values = {'slab': 3, 'capacity': ROOM} | values
  return nano.stage_config('stage2', runs, **values)


@pytest.fixture(scope='module')
def run(nano_runs, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('slabs') / 'stage2'
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(presets.PRESETS, 'nano', lambda: nano.MODEL)
    nano.train(config(nano_runs), workdir)
  return workdir


def evaluate(workdir, *flags):
  flags = ('--parts=synthesis', '--split=val', *flags)
  return commands.run('evaluate', f'--workdir={workdir}', *flags)


def test_a_batch_has_slabs_of_sources_and_targets(nano_runs, nano_preset):
  batch = next(iter(build(config(nano_runs)).data))
  for row in range(len(batch.noise_ids)):
    noised = batch.noise_ids[row] > 0
    # A latent token for each image of 8 x 8 pixels, three images a slab.
    assert set(batch.noise_ids[row][noised]) == {1}
    offsets = batch.latent_offsets[row]
    tokens = noised.sum() // 3
    slab = np.repeat([-1, 0, 1], tokens)
    np.testing.assert_array_equal(offsets[noised], slab)
    clean = (batch.gen.example_ids[row] > 0) & ~noised
    np.testing.assert_array_equal(offsets[clean], slab)


def test_a_run_synthesises_the_slabs_that_it_was_trained_with(run):
  assert Trained.load(run).sampling.slab == 3


def test_slabs_are_scored_across_slices(run):
  code, _, err = evaluate(run, '--slices=0')
  assert code == 0, err
  metrics = json.loads((run / 'evaluation' / 'metrics.json').read_text())
  assert metrics['sampling']['slab'] == 3
  assert metrics['left_out'] == {}
  for score in metrics['synthesis'].values():
    assert {'ssim_3d', 'roughness', 'roughness_z'} <= score.keys()


def test_slabs_need_neighbouring_slices(run):
  assert_refused(evaluate(run, '--slices=2'), '--slices=2: ', 'slab 3 needs')
  apart = ('--slices=2', '--slab=1')
  assert_refused(
    evaluate(run, *apart, '--grain=2.5'),
    '--slices=2: picks slices apart, and grain 2.5 needs neighbours',
  )
  code, _, err = evaluate(run, *apart)
  assert code == 0, err


@pytest.mark.parametrize(
  ('values', 'words'),
  [
    ({'slab': 0}, r'config\.slab 0: must be at least 1'),
    (
      {'generation': 'masked', 'init_from': ''},
      r'slab 3: codes of several slices',
    ),
    (
      {'capacity': ROOM | {'images': 5}},
      r'config\.capacity\.images is 5, .* needs 6',
    ),
  ],
)
def test_a_slab_that_does_not_fit_is_refused(
  nano_runs, nano_preset, values, words
):
  with pytest.raises(ConfigError, match=words):
    build(config(nano_runs, **values))
