"""What the train loop and its checkpoints cost beside the compiled step.

  python -m benchmarks.checkpointing [--model=tiny] [--steps=200]

The loop runs whole, with the demo's Stage I batch and state, but its step does
nothing: what is left is the loop's own. A save blocks the loop while arrays are
copied, and then writes in the background (`training/saver.py`). On two CPU
cores: see docs/running.md.
"""

import dataclasses
import functools
import importlib.util
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags, logging

from synermedgen_jax.checkpoint import orbax_items as ckpt
from synermedgen_jax.core.batch import Capacity
from synermedgen_jax.core.sharding import make_mesh
from synermedgen_jax.input.tokenizer import project_tokenizer
from synermedgen_jax.models.presets import preset
from synermedgen_jax.planning.rows import sample_rows
from synermedgen_jax.tasks.prompts import PROMPTS
from synermedgen_jax.training import loop, run
from synermedgen_jax.training.saver import Saver
from synermedgen_jax.training.train_state import create_state

_MODEL = flags.DEFINE_string('model', 'tiny', 'A preset.')
_STAGE = flags.DEFINE_string('stage', 'stage1', 'A config of configs/.')
_LAYERS = flags.DEFINE_integer('layers', 0, 'Of the language model, instead.')
_VOCAB = flags.DEFINE_integer('vocab', 0, 'Of the language model, instead.')
_STEPS = flags.DEFINE_integer('steps', 400, 'Of the idle loop; 0 = none.', 0)
_SAVES = flags.DEFINE_integer('saves', 5, 'Checkpoints to write.', 1)


class OneBatch:
  """Data that cost nothing: the same batch again and again."""

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


def _config(name: str):
  path = Path(__file__).parents[1] / 'configs' / f'{name}.py'
  spec = importlib.util.spec_from_file_location(name, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(_MODEL.value)


@dataclasses.dataclass
class Parts:
  """All that the loop takes."""

  config: object
  model: object
  tx: object
  mesh: object

  @functools.cached_property
  def batch(self):
    config = self.config
    return sample_rows(
      config.tasks,
      PROMPTS[config.prompts],
      project_tokenizer(),
      self.model.image_geometry(**config.image),
      Capacity(**config.capacity),
      rows=config.rows,
    )

  def state(self):
    scales, _ = run.optimiser(self.config, self.model)
    return create_state(
      self.model,
      scales,
      self.tx,
      self.mesh,
      seed=0,
      ema=self.config.ema > 0,
    )


def _parts() -> Parts:
  config = _config(_STAGE.value)
  model = preset(config.model)
  smaller = {'layers': _LAYERS.value, 'vocab': _VOCAB.value}
  smaller = {key: value for key, value in smaller.items() if value}
  model = dataclasses.replace(
    model, llm=dataclasses.replace(model.llm, **smaller)
  )
  _, tx = run.optimiser(config, model)
  return Parts(config, model, tx, make_mesh(config.mesh))


def _idle_step(parts: Parts, constants):
  """A step that changes nothing, and tells what the real one tells."""
  state, _ = parts.state()
  real = loop.make_train_step(parts.model, parts.tx, constants)
  _, sums = jax.eval_shape(real, state, parts.batch)

  def make(*_):
    def step(state, batch):
      zero = (batch.labels[0, 0] * 0).astype('float32')
      terms = jax.tree.map(lambda x: jnp.full(x.shape, zero), sums)
      return state.replace(step=state.step + 1), terms

    return step

  return make


def _seconds_a_step(parts: Parts, steps: int) -> float:
  """Of the whole loop around an idle step, without its compilation."""
  constants = run.step_config(parts.config)
  loop.make_train_step = _idle_step(parts, constants)
  state, shardings = parts.state()
  abstract = jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
    state,
    shardings,
  )
  with tempfile.TemporaryDirectory() as folder:
    loop.train(
      Path(folder),
      parts.model,
      abstract,
      lambda: state,
      parts.tx,
      parts.mesh,
      OneBatch(parts.batch),
      [],
      constants,
      loop.LoopConfig(
        steps=steps,
        rate=optax.constant_schedule(1.0),
        log_every=parts.config.log_every,
        checkpoint_every=steps,
      ),
    )
    rows = (Path(folder) / 'metrics.jsonl').read_text().splitlines()
  # The first row has the compilation in it.
  return statistics.median(
    json.loads(row)['step_seconds/p50'] for row in rows[1:]
  )


def _save_seconds(parts: Parts, saves: int) -> tuple[float, float, float]:
  """MB, and the medians of seconds that a save blocks, and that it takes."""
  state, _ = parts.state()
  blocked, taken = [], []
  with tempfile.TemporaryDirectory() as folder:
    saver = Saver(ckpt.manager(folder, keep=1))
    for step in range(saves + 1):
      start = time.perf_counter()
      saver.save(step, state, OneBatch(), parts.model, {})
      blocked.append(time.perf_counter() - start)
      saver.wait()
      taken.append(time.perf_counter() - start)
    saver.close()
  size = sum(x.nbytes for x in jax.tree.leaves(state)) / 1e6
  # The first one makes threads and caches.
  return size, statistics.median(blocked[1:]), statistics.median(taken[1:])


def main(_) -> None:
  logging.set_verbosity(logging.WARNING)
  parts = _parts()
  size, blocked, taken = _save_seconds(parts, _SAVES.value)
  print(
    f'a save of {size:.1f} MB: {1e3 * taken:.0f} ms, of which the loop is '
    f'blocked {1e3 * blocked:.0f} ms, {blocked / taken:.1%}'
  )
  if not _STEPS.value:
    return
  own = _seconds_a_step(parts, _STEPS.value)
  print(f'the loop around an idle step: {1e3 * own:.2f} ms a step')


if __name__ == '__main__':
  app.run(main)
