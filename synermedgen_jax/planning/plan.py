"""Compiles the step that `main` trains with, for devices that are absent.

Nothing is allocated: state and batch are shapes. The compiler is the real one,
so its figures of memory hold.
"""

from __future__ import annotations

import dataclasses
import time

import flax.linen as nn
import jax
import numpy as np
from ml_collections import ConfigDict

from synermedgen_jax.core.batch import Capacity, ImageGeometry, PackedBatch
from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.sharding import LOGICAL_RULES
from synermedgen_jax.planning import collectives as moved
from synermedgen_jax.planning.rows import sample_rows_of
from synermedgen_jax.planning.topologies import Topology
from synermedgen_jax.training.build import batch_shapes, build
from synermedgen_jax.training.flops import active_blocks, step_flops
from synermedgen_jax.training.loop import Run, jit_steps

# Assumed share of the peak rate, for times.
UTILISATION = 0.4
_SAMPLED_ROWS = 4


class DoesNotFit(UserError):
  """A step that exceeds the devices' memory; one line."""


@dataclasses.dataclass(frozen=True)
class Plan:
  """Memory, work, messages and time of a training step.

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
  run = build(config, devices=topology.devices, data=False)
  batch = batch_shapes(run)
  start = time.monotonic()
  compiled = _compile(run, batch)
  seconds = time.monotonic() - start
  memory = compiled.memory_analysis()
  rows = sample_rows_of(run, rows=_SAMPLED_ROWS)
  active = active_blocks(rows)
  operations = step_flops(run.model, run.tx, run.step, run.state, batch, active)
  chip = topology.chip
  return Plan(
    topology=topology.name,
    stage=run.step.stage,
    model=run.config['model'],
    devices=run.mesh.size,
    mesh=dict(run.mesh.shape),
    rows=run.rows,
    capacity=run.capacity,
    fill=_fill(rows),
    images=run.rows * _images_of_a_row(rows, run.geometry),
    state_bytes={
      name: _bytes_of_a_device(getattr(run.state, name))
      for name in ('trainable', 'frozen', 'opt_state', 'ema')
    },
    batch_bytes=_bytes_of_a_device(batch),
    temporary_bytes=memory.temp_size_in_bytes,
    peak_bytes=memory.peak_memory_in_bytes,
    limit_bytes=chip and int(chip.memory_gb * 2**30),
    flops=operations,
    active_blocks=active,
    collectives=moved.collectives(compiled.as_text(), run.mesh),
    step_seconds=chip
    and sum(operations.values())
    / (run.mesh.size * chip.tflops * 1e12 * UTILISATION),
    compile_seconds=seconds,
  )


def _compile(run: Run, batch: PackedBatch) -> jax.stages.Compiled:
  step, _ = jit_steps(run)
  with jax.set_mesh(run.mesh), nn.logical_axis_rules(LOGICAL_RULES):
    lowered = step.lower(run.state, batch)
    try:
      return lowered.compile()
    except jax.errors.JaxRuntimeError as error:
      if 'RESOURCE_EXHAUSTED' not in str(error):
        raise
      raise DoesNotFit(
        f'{run.config["model"]} does not fit: {str(error).splitlines()[0]} '
        'Give parameters more devices (config.mesh), rows fewer or shorter '
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
