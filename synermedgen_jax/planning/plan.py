"""Compiles the training step of `main` for devices that are not attached.

State and batch are shapes, so nothing is allocated. The compiler is that of the
devices, so its memory analysis applies to them.
"""

from __future__ import annotations

import dataclasses
import time

import flax.linen as nn
import jax
import numpy as np
from ml_collections import ConfigDict

from synermedgen_jax.core.batch import Capacity, ImageGeometry, PackedBatch
from synermedgen_jax.core.compiling import compiling
from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.sharding import LOGICAL_RULES
from synermedgen_jax.planning import collectives as hlo
from synermedgen_jax.planning.rows import sample_rows_of
from synermedgen_jax.planning.topologies import Topology
from synermedgen_jax.training.build import batch_shapes, build
from synermedgen_jax.training.flops import needed_shares, step_flops
from synermedgen_jax.training.loop import BagelRun, jit_steps

# Assumed share of the peak FLOP rate, for step times.
UTILISATION = 0.4
_SAMPLED_ROWS = 16


class DoesNotFit(UserError):
  """The step exceeds the memory of the devices; one line."""


@dataclasses.dataclass(frozen=True)
class Plan:
  """Memory, flops, communication and time of a training step.

  Bytes are per device. Operations are those of one step on all devices, without
  recomputation.

  Attributes:
    topology, stage, model: their names.
    remat: recomputation, a name in `layers.REMAT_POLICIES`.
    devices: number of devices.
    mesh: axis -> size.
    rows: rows per step, over all devices.
    capacity: capacity of a row.
    fill: stream -> share of its capacity that sampled rows use.
    images: VAE images per step, sources and targets; in a stage without a gen
      stream, ViT images per step.
    state_bytes: bytes of 'trainable', 'frozen', 'opt_state' and 'ema'.
    batch_bytes: bytes of the batch.
    temporary_bytes: bytes of temporaries during the step.
    peak_bytes: peak memory during the step.
    limit_bytes: memory of the device; None for fake devices.
    flops: 'attention' (active blocks only) and 'other' -> operations per step.
    active_blocks: 'mot' and 'vit' -> share of the attention blocks (queries x
      keys) with a visible pair.
    collectives: communication between devices.
    step_seconds: time at `UTILISATION` of the peak rate; None for fake
      devices.
    compile_seconds: compile time on this host.
  """

  topology: str
  stage: str
  model: str
  remat: str
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
  collectives: list[hlo.Collective]
  step_seconds: float | None
  compile_seconds: float

  @property
  def tokens(self) -> float:
    """Tokens per step without padding, of both streams."""
    used = self.capacity.und * self.fill['und']
    return self.rows * (used + self.capacity.gen * self.fill.get('gen', 0.0))

  def to_json(self) -> dict:
    return dataclasses.asdict(self) | {'tokens': self.tokens}


def make_plan(config: ConfigDict, topology: Topology) -> Plan:
  """Compiles the training step of `config` for the topology.

  Args:
    config: config of a stage.
    topology: the devices, from `find_topology`.

  Raises:
    ConfigError: the config is invalid for these devices.
    ExampleTooLarge: an example exceeds the capacity of a row.
    DoesNotFit: the step exceeds the memory of the devices.
  """
  run = build(config, devices=topology.devices, data=False)
  batch = batch_shapes(run)
  rows = sample_rows_of(run, rows=_SAMPLED_ROWS)
  start = time.monotonic()
  compiled = _compile(run, batch)
  seconds = time.monotonic() - start
  memory = compiled.memory_analysis()
  shares = needed_shares(rows)
  flops = step_flops(run.model, run.tx, run.step, run.state, batch, shares)
  chip = topology.chip
  return Plan(
    topology=topology.name,
    stage=run.step.stage,
    model=run.config['model'],
    remat=run.model.compute.remat,
    devices=run.mesh.size,
    mesh=dict(run.mesh.shape),
    rows=run.rows,
    capacity=run.capacity,
    fill=_fill(rows),
    images=run.rows * _images_per_row(rows, run.geometry),
    state_bytes={
      name: _bytes_per_device(getattr(run.state, name))
      for name in ('trainable', 'frozen', 'opt_state', 'ema')
    },
    batch_bytes=_bytes_per_device(batch),
    temporary_bytes=memory.temp_size_in_bytes,
    peak_bytes=memory.peak_memory_in_bytes,
    limit_bytes=chip and int(chip.memory_gb * 2**30),
    flops=flops,
    active_blocks={part: shares[part] for part in ('mot', 'vit')},
    collectives=hlo.collectives(compiled.as_text(), run.mesh),
    step_seconds=chip
    and sum(flops.values())
    / (run.mesh.size * chip.tflops * 1e12 * UTILISATION),
    compile_seconds=seconds,
  )


def _compile(run: BagelRun, batch: PackedBatch) -> jax.stages.Compiled:
  step, _ = jit_steps(run)
  with jax.set_mesh(run.mesh), nn.logical_axis_rules(LOGICAL_RULES):
    lowered = step.lower(run.state, batch)
    try:
      with compiling('the training step'):
        return lowered.compile()
    except jax.errors.JaxRuntimeError as error:
      if 'RESOURCE_EXHAUSTED' not in str(error):
        raise
      raise DoesNotFit(
        f'{run.config["model"]} does not fit: {str(error).splitlines()[0]} '
        'Shard the parameters over more devices (config.mesh), or reduce '
        'config.rows or config.capacity.'
      ) from None


def _fill(batch: PackedBatch) -> dict[str, float]:
  """Share of each stream and of the ViT buffer that is not padding."""
  used = {
    'und': batch.und.example_ids > 0,
    'gen': batch.gen.example_ids > 0,
    'vit': batch.vit_visible_to > 0,
  }
  return {name: float(x.mean()) for name, x in used.items() if x.size}


def _images_per_row(batch: PackedBatch, geometry: ImageGeometry) -> float:
  """Mean number of VAE images per row; of ViT images if there are none."""
  if not batch.latent_index.size:
    firsts = np.diff(batch.vit_visible_from, axis=1, prepend=-1) != 0
    return float((firsts & (batch.vit_visible_to > 0)).sum(axis=1).mean())
  canvas = batch.latent_index // geometry.image_latents
  real = batch.gen.example_ids > 0
  return float(
    np.mean([len(set(c[r])) for c, r in zip(canvas, real, strict=True)])
  )


def _bytes_per_device(tree) -> int:
  return sum(
    int(np.prod(x.sharding.shard_shape(x.shape))) * x.dtype.itemsize
    for x in jax.tree.leaves(tree)
  )
