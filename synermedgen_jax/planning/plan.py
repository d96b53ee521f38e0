"""The very step that `main` trains with, compiled for devices one has not got.

Nothing is allocated: state and batch are shapes. The compiler is the real one,
so what it says of memory holds.
"""

from __future__ import annotations

import dataclasses
import time

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from synermedgen_jax.config.errors import ConfigError
from synermedgen_jax.config.model import with_compute
from synermedgen_jax.core.batch import (
  Capacity,
  ImageGeometry,
  PackedBatch,
  abstract_batch,
)
from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.sharding import (
  LOGICAL_RULES,
  batch_sharding,
  make_mesh,
)
from synermedgen_jax.input.tokenizer import load_tokenizer
from synermedgen_jax.models.bagel import BagelConfig
from synermedgen_jax.models.presets import preset
from synermedgen_jax.planning import collectives as moved
from synermedgen_jax.planning.rows import sample_rows
from synermedgen_jax.planning.topologies import Topology
from synermedgen_jax.training import loop, run
from synermedgen_jax.training.config_checks import check
from synermedgen_jax.training.flops import active_blocks, step_flops
from synermedgen_jax.training.train_state import TrainState, abstract_state

# Of the peak rate: what a well-fed model of this kind reaches.
UTILISATION = 0.4
_SAMPLED_ROWS = 4
# Tasks whose examples come from pairs of slices; the others need files.
_FROM_PAIRS = ('cts', 'mi', 'tia', 'synthesis', 'reconstruction')


class DoesNotFit(UserError):
  """The compiler found no way to run the step in the devices' memory."""


@dataclasses.dataclass(frozen=True)
class Plan:
  """What a step takes.

  Bytes are of one device; operations are of the whole step on all of them, of
  the model alone: what is recomputed to save memory is not counted.

  Attributes:
    topology, stage, model: as asked for.
    devices: how many.
    mesh: size by axis.
    rows: rows a step, over all devices.
    capacity: what a row holds.
    fill: share of each stream's capacity that sampled rows use.
    images: canvases of a step, source and target each; in a stage without a
      gen stream, pictures that the ViT looks at.
    state_bytes: 'trainable', 'frozen', 'opt_state', 'ema'.
    batch_bytes: of the batch.
    temporary_bytes: of everything within the step.
    peak_bytes: the most at one time.
    limit_bytes: the device's memory; None for fake devices.
    flops: 'attention' (by active blocks) and 'other'.
    active_blocks: share of the blocks of queries and keys in which anything
      is visible, of the 'mot' and of the 'vit'.
    collectives: what the devices send one another.
    step_seconds: at `UTILISATION` of the peak rate; None for fake devices.
    compile_seconds: on this host.
  """

  topology: str
  stage: str
  model: str
  devices: int
  mesh: dict[str, int]
  rows: int
  capacity: Capacity
  fill: dict[str, float]
  images: float
  state_bytes: dict[str, int]
  batch_bytes: int
  temporary_bytes: int
  peak_bytes: int
  limit_bytes: int | None
  flops: dict[str, float]
  active_blocks: dict[str, float]
  collectives: list[moved.Collective]
  step_seconds: float | None
  compile_seconds: float

  @property
  def tokens(self) -> float:
    """Real tokens a step, of both streams."""
    used = self.capacity.und * self.fill['und']
    return self.rows * (used + self.capacity.gen * self.fill.get('gen', 0.0))

  def to_json(self) -> dict:
    return dataclasses.asdict(self) | {'tokens': self.tokens}


def make_plan(config: ConfigDict, topology: Topology) -> Plan:
  """Compiles the step of `config` for the topology.

  Raises:
    ConfigError: the config cannot run there.
    DoesNotFit: the compiler ran out of the devices' memory.
  """
  if config.model == 'init_from':
    raise ConfigError(
      "config.model 'init_from': name a preset, as configs/stage1.py:bagel_7b; "
      'nothing is read from a checkpoint here.'
    )
  try:
    model = preset(config.model)
    mesh = make_mesh(config.mesh, topology.devices)
    geometry = model.image_geometry(**config.image)
    tokenizer = load_tokenizer(config.tokenizer)
  except ValueError as error:
    raise ConfigError(str(error)) from None
  check(config, model, tokenizer, mesh)
  model = with_compute(config, model)
  capacity = Capacity(**config.capacity)
  state, batch = abstract_step(config, model, mesh, geometry, capacity)
  start = time.monotonic()
  compiled = _compile(config, model, mesh, state, batch)
  seconds = time.monotonic() - start
  memory = compiled.memory_analysis()

  tasks = {t: s for t, s in config.tasks.items() if t in _FROM_PAIRS and s > 0}
  rows = sample_rows(tasks, tokenizer, geometry, capacity, rows=_SAMPLED_ROWS)
  active = active_blocks(rows)
  _, tx = run.optimiser(config, model)
  operations = step_flops(
    model, tx, run.step_config(config), state, batch, active
  )
  chip = topology.chip
  return Plan(
    topology=topology.name,
    stage=config.stage,
    model=config.model,
    devices=mesh.size,
    mesh=dict(mesh.shape),
    rows=config.rows,
    capacity=capacity,
    fill=_fill(rows),
    images=config.rows * _images_of_a_row(rows, geometry),
    state_bytes={
      name: _bytes_of_a_device(getattr(state, name))
      for name in ('trainable', 'frozen', 'opt_state', 'ema')
    },
    batch_bytes=_bytes_of_a_device(batch),
    temporary_bytes=memory.temp_size_in_bytes,
    peak_bytes=memory.peak_memory_in_bytes,
    limit_bytes=chip and int(chip.memory_gb * 2**30),
    flops=operations,
    active_blocks=active,
    collectives=moved.collectives(compiled.as_text(), mesh),
    step_seconds=chip
    and sum(operations.values())
    / (mesh.size * chip.tflops * 1e12 * UTILISATION),
    compile_seconds=seconds,
  )


def abstract_step(
  config: ConfigDict,
  model: BagelConfig,
  mesh: Mesh,
  geometry: ImageGeometry,
  capacity: Capacity,
) -> tuple[TrainState, PackedBatch]:
  """State and batch as shapes on the mesh."""
  scales, tx = run.optimiser(config, model)
  state = abstract_state(model, scales, tx, mesh, ema=config.ema > 0)
  rows = batch_sharding(mesh)
  batch = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=rows),
    abstract_batch(config.rows, capacity, geometry),
  )
  return state, batch


def _compile(config, model, mesh, state, batch) -> jax.stages.Compiled:
  """As `training.loop` jits it."""
  _, tx = run.optimiser(config, model)
  shardings = jax.tree.map(lambda x: x.sharding, state)
  step = jax.jit(
    loop.make_train_step(model, tx, run.step_config(config)),
    donate_argnums=0,
    out_shardings=(shardings, None),
  )
  with jax.set_mesh(mesh), nn.logical_axis_rules(LOGICAL_RULES):
    lowered = step.lower(state, batch)
    try:
      return lowered.compile()
    except jax.errors.JaxRuntimeError as error:
      if 'RESOURCE_EXHAUSTED' not in str(error):
        raise
      raise DoesNotFit(
        f'{config.model} does not fit: {str(error).splitlines()[0]} Give '
        'parameters more devices (config.mesh), rows fewer or shorter '
        '(config.rows, config.capacity).'
      ) from None


def _fill(batch: PackedBatch) -> dict[str, float]:
  """The shares of the streams that hold tokens, and of the ViT's buffer."""
  used = {
    'und': batch.und.example_ids > 0,
    'gen': batch.gen.example_ids > 0,
    'vit': batch.vit_visible_to > 0,
  }
  return {name: float(x.mean()) for name, x in used.items() if x.size}


def _images_of_a_row(batch: PackedBatch, geometry: ImageGeometry) -> float:
  """Canvases, or in rows without any, pictures that the ViT looks at."""
  if not batch.latent_index.size:
    firsts = np.diff(batch.vit_visible_from, axis=1, prepend=-1) != 0
    return float((firsts & (batch.vit_visible_to > 0)).sum(axis=1).mean())
  canvas = (
    batch.latent_index // (geometry.vae_side // geometry.latent_stride) ** 2
  )
  real = batch.gen.example_ids > 0
  return float(
    np.mean([len(set(c[r])) for c, r in zip(canvas, real, strict=True)])
  )


def _bytes_of_a_device(tree) -> int:
  return sum(
    int(np.prod(x.sharding.shard_shape(x.shape))) * x.dtype.itemsize
    for x in jax.tree.leaves(tree)
  )
