"""Times a training step."""

from __future__ import annotations

import dataclasses
import time

import torch

from benchmarks import shapes
from benchmarks.torch_rival import records
from benchmarks.torch_rival.batch import prepare
from benchmarks.torch_rival.model import Rival
from benchmarks.torch_rival.training import Trainer


def measure(
  writer: records.Records,
  device: torch.device,
  *,
  model: str,
  stage: str,
  rows: int,
  remat: str,
  detach: bool,
  compiled: bool,
  repeats: int,
) -> None:
  """Writes a record of one stage's step, its latents given.

  Args:
    writer: where to.
    device: where it runs.
    model, stage, rows: of `shapes`; 0 rows are the shape's own.
    remat: 'none' or 'full'.
    detach: no gradient flows through the und stream.
    compiled: compile the layers.
    repeats: steps to time, after three.
  """
  torch.manual_seed(0)
  shape, config = shapes.model_shape(model), shapes.stage_config(stage, model)
  config.rows = rows or config.rows
  packed = shapes.sampled_batch(config, shape)
  tokens = sum(
    int((stream.example_ids > 0).sum()) for stream in (packed.und, packed.gen)
  )
  dtype = torch.float32 if device.type == 'cpu' else torch.bfloat16
  records.reset_peak(device)
  with device:
    rival = Rival(shape, dtype=dtype, remat=remat == 'full', detach=detach)
  if compiled:
    rival.compile_layers()
  trainer = Trainer(rival, config)
  batch = prepare(
    packed,
    device,
    by_example=device.type == 'cpu',
    task_weights=shapes.task_weights(config),
  )
  latents = None
  if batch.noise_ids.shape[1]:
    latents = torch.randn(
      (*batch.noise_ids.shape, shape.latent_dim), device=device
    )
  start = time.perf_counter()
  trainer.step(batch, latents)
  records.synchronise(device)
  first = time.perf_counter() - start
  times = records.seconds(
    lambda: trainer.step(batch, latents), device, repeats=repeats, warmups=2
  )
  loss = float(trainer.step(batch, latents))
  writer.add(
    benchmark='step',
    implementation='torch' + '_compiled' * compiled,
    model=model,
    stage=stage,
    remat=remat,
    detach_und=detach,
    latents='given',
    dtype=str(dtype).removeprefix('torch.'),
    shapes={
      'rows': config.rows,
      'tokens': tokens,
      **dataclasses.asdict(shapes.Capacity(**config.capacity)),
    },
    first_step_seconds=first,
    seconds=times.wall,
    cpu_seconds=times.cpu,
    tokens_per_second=tokens / times.wall,
    peak_gb=records.peak_gb(device),
    loss=loss,
  )
