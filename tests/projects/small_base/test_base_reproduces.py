"""The first losses of the base's stages equal the recorded ones.

`weights/small/first_losses.json` holds the losses of the first 50 steps of the
two stages that begin from initial weights. Another CPU sums in another order,
so they agree to within 2 %. The first steps of Stage I from the shipped
weights, before rounding adds up, agree to 1e-5.

  python -m tests.projects.small_base.test_base_reproduces

writes the file again.
"""

import importlib
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest

from projects.small_base.initial_heads import STARTS, initial_weights
from synermedgen_jax.checkpoint import weights_folder
from synermedgen_jax.models.presets import preset
from synermedgen_jax.training import build, loop

RECORD = Path(__file__).parents[3] / 'weights' / 'small' / 'first_losses.json'
STAGES = ('autoencoder', 'vision')
STEPS = 50
TOLERANCE = 0.02
# Of `configs/small/stage1.py` on the fake store.
STAGE1 = (
  5.511221408843994,
  7.306981086730957,
  6.3878302574157715,
)


def losses(config, workdir: Path) -> list[float]:
  """The loss of every step of a run."""
  config.log_every, config.val_every = 1, 0
  loop.train(build.build(config), workdir)
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  return [json.loads(line)['loss'] for line in lines]


def first_losses(stage: str, folder: Path) -> list[float]:
  """The losses of a stage's first steps, which lie within its warm-up."""
  model = preset('small')
  weights_folder.save_weights(
    folder / 'start',
    model,
    initial_weights(model, STARTS['small']),
    dtype='float32',
  )
  name = f'projects.small_base.configs.{stage}'
  config = importlib.import_module(name).get_config()
  config.init_from = str(folder / 'start')
  config.steps = STEPS
  return losses(config, folder / 'run')


def test_the_shipped_weights_have_the_shape_of_the_preset_and_are_small():
  """Configs of `small` start from them, so the shapes have to be the same."""
  assert weights_folder.load_shape(RECORD.parent) == preset('small')
  files = (path.stat().st_size for path in RECORD.parent.iterdir())
  assert sum(files) <= 12e6


@pytest.mark.usefixtures('quick_compiles')
def test_the_first_losses_of_stage_1_from_the_shipped_weights(
  store_path, tmp_path
):
  config = importlib.import_module('configs.small.stage1').get_config()
  config.store, config.init_from = str(store_path), str(RECORD.parent)
  config.steps, config.compute.unroll = len(STAGE1), 1  # quick to compile
  measured = losses(config, tmp_path)
  np.testing.assert_allclose(measured, STAGE1, rtol=1e-5)


@pytest.mark.usefixtures('quick_compiles')
@pytest.mark.parametrize(
  'stage', [STAGES[0], pytest.param(STAGES[1], marks=pytest.mark.slow)]
)
def test_the_first_losses_of_the_base(stage, tmp_path):
  expected = json.loads(RECORD.read_text())[stage]
  assert len(expected) == STEPS
  measured = first_losses(stage, tmp_path)
  np.testing.assert_allclose(measured, expected, rtol=TOLERANCE)


def main() -> None:
  record = {}
  for stage in STAGES:
    with tempfile.TemporaryDirectory() as folder:
      measured = first_losses(stage, Path(folder))
    record[stage] = [round(loss, 5) for loss in measured]
  RECORD.parent.mkdir(parents=True, exist_ok=True)
  RECORD.write_text(json.dumps(record, indent=1) + '\n')


if __name__ == '__main__':
  main()
