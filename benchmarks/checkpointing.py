"""Times the train loop and its checkpoints, without the compiled step.

  python -m benchmarks.checkpointing [--model=tiny] [--steps=200]

The complete loop runs with the batch and the state of the demo's Stage I and a
step that does nothing, so the time per step is that of the loop. A save blocks
the loop while arrays are copied, and then writes in the background
(`training/saver.py`). docs/running.md has the times on two CPU cores.
"""

import dataclasses
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging

from benchmarks import stages
from synermedgen_jax.checkpoint import orbax_items as ckpt
from synermedgen_jax.core.batch import PackedBatch
from synermedgen_jax.models.presets import PRESETS, preset
from synermedgen_jax.planning.rows import sample_rows_of
from synermedgen_jax.training import loop
from synermedgen_jax.training.build import build
from synermedgen_jax.training.saver import Saver

_MODEL = flags.DEFINE_string(
  'model', 'tiny', 'tiny or small with their own configs, or another preset.'
)
_STAGE = flags.DEFINE_enum(
  'stage', 'stage1', stages.STAGES, 'Stage whose state is saved.'
)
_LAYERS = flags.DEFINE_integer(
  'layers', 0, "Layers of the language model; 0 = the preset's."
)
_VOCAB = flags.DEFINE_integer(
  'vocab', 0, "Vocabulary of the language model; 0 = the preset's."
)
_STEPS = flags.DEFINE_integer(
  'steps', 400, 'Steps of the loop with an idle step; 0 = time saves only.', 0
)
_SAVES = flags.DEFINE_integer('saves', 5, 'Checkpoints to write.', 1)


class OneBatch:
  """An endless iterator over one batch, which takes no time to read."""

  numbers = np.zeros((1, 1), int)
  layout: ClassVar[dict] = {}

  def __init__(self, batch=None):
    self.batch = batch

  def __iter__(self):
    return self

  def __next__(self):
    return self.batch

  def describe(self, numbers):
    return []

  def get_state(self):
    return {'0': {'next': 0}}


def _run() -> loop.Run:
  """The stage, with `--layers` and `--vocab` of its language model."""
  config = stages.stage_config(_STAGE.value, _MODEL.value)
  smaller = {'layers': _LAYERS.value, 'vocab': _VOCAB.value}
  smaller = {key: value for key, value in smaller.items() if value}
  if smaller:
    model = preset(config.model)
    llm = dataclasses.replace(model.llm, **smaller)
    PRESETS['smaller'] = lambda: dataclasses.replace(model, llm=llm)
    config.model = 'smaller'
  return build(config, data=False)


def _batch(run: loop.Run) -> PackedBatch:
  return sample_rows_of(run, rows=run.rows)


def _idle_step(run: loop.Run, batch: PackedBatch):
  """A step that changes nothing and returns the terms of the real one."""
  real = loop.make_train_step(run.model, run.tx, run.step)
  _, sums = jax.eval_shape(real, run.state, batch)

  def make(*_):
    def step(state, batch):
      zero = (batch.labels[0, 0] * 0).astype('float32')
      terms = jax.tree.map(lambda x: jnp.full(x.shape, zero), sums)
      return state.replace(step=state.step + 1), terms

    return step

  return make


def _seconds_a_step(run: loop.Run, steps: int) -> float:
  """Median seconds per step of the loop with an idle step."""
  batch = _batch(run)
  loop.make_train_step = _idle_step(run, batch)
  run = dataclasses.replace(
    run,
    data=OneBatch(batch),
    loop=dataclasses.replace(
      run.loop, steps=steps, checkpoint_every=steps, val_every=0
    ),
  )
  with tempfile.TemporaryDirectory() as folder:
    loop.train(run, Path(folder))
    rows = (Path(folder) / 'metrics.jsonl').read_text().splitlines()
  # The first row includes the compilation.
  return statistics.median(
    json.loads(row)['step_seconds/p50'] for row in rows[1:]
  )


def _save_seconds(run: loop.Run, saves: int) -> tuple[float, float, float]:
  """Size in MB of a save, median seconds that it blocks the loop and in all."""
  state = run.create()
  blocked, taken = [], []
  with tempfile.TemporaryDirectory() as folder:
    saver = Saver(ckpt.manager(folder, keep=1))
    for step in range(saves + 1):
      start = time.perf_counter()
      saver.save(step, state, OneBatch(), run.model.config, {})
      blocked.append(time.perf_counter() - start)
      saver.wait()
      taken.append(time.perf_counter() - start)
    saver.close()
  size = sum(x.nbytes for x in jax.tree.leaves(state)) / 1e6
  # The first save starts threads and fills caches.
  return size, statistics.median(blocked[1:]), statistics.median(taken[1:])


def main(_) -> None:
  logging.set_verbosity(logging.WARNING)
  run = _run()
  size, blocked, taken = _save_seconds(run, _SAVES.value)
  print(
    f'a save of {size:.1f} MB: {1e3 * taken:.0f} ms, of which the loop is '
    f'blocked {1e3 * blocked:.0f} ms, {blocked / taken:.1%}'
  )
  if not _STEPS.value:
    return
  own = _seconds_a_step(run, _STEPS.value)
  print(f'the loop around an idle step: {1e3 * own:.2f} ms a step')


if __name__ == '__main__':
  app.run(main)
