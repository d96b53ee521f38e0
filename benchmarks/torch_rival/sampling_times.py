"""Times sampling with three contexts."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks import shapes
from benchmarks.torch_rival import records
from benchmarks.torch_rival.model import Rival
from benchmarks.torch_rival.sampling import Sampler


def measure(
  writer: records.Records,
  device: torch.device,
  *,
  model: str,
  points: int,
  batches: list[int],
  compiled: bool,
  repeats: int,
) -> None:
  """Writes a record for each batch size, on a GPU with and without a graph.

  The time covers the prompts and all steps, with the clean latents given and
  without decoding. `step_seconds` is one step of all contexts.
  """
  torch.manual_seed(0)
  shape, config = shapes.model_shape(model), shapes.sampling_config(points)
  dtype = torch.float32 if device.type == 'cpu' else torch.bfloat16
  with device:
    rival = Rival(shape, dtype=dtype).to(dtype)
  if compiled:
    rival.compile_layers()
  for batch in batches:
    prompts = shapes.sampling_prompts(model, shape, batch, config)
    latents = {
      context: np.random.default_rng(0).standard_normal(
        (*prompt.conditions.gen.order.shape, shape.latent_dim), np.float32
      )
      for context, prompt in prompts.items()
    }
    count = prompts['full'].target.gen.order.shape[1]
    noise = torch.randn((batch, count, shape.latent_dim), device=device)
    for graph in (False, True) if device.type == 'cuda' else (False,):
      common = {
        'benchmark': 'sampling',
        'implementation': 'torch'
        + '_compiled' * compiled
        + '_cuda_graph' * graph,
        'model': model,
        'dtype': str(dtype).removeprefix('torch.'),
        'shapes': {
          'batch': batch,
          'points': points,
          'contexts': len(prompts),
          'target_tokens': count,
        },
      }
      try:
        times = _times(
          Sampler(
            rival,
            prompts,
            latents,
            config,
            by_example=device.type == 'cpu',
            graph=graph,
          ),
          noise,
          repeats,
        )
      except Exception as error:  # one variant must not end the others
        writer.add(**common, error=f'{type(error).__name__}: {error}'[:500])
        continue
      writer.add(**common, **times)


def _times(sampler: Sampler, noise: torch.Tensor, repeats: int) -> dict:
  device = noise.device
  records.reset_peak(device)
  times = records.seconds(
    lambda: sampler.run(noise), device, repeats=repeats, warmups=1
  )
  with torch.no_grad():
    prefill = records.seconds(
      sampler.prefill, device, repeats=repeats, warmups=1
    )
  steps = sampler.config.points - 1
  return {
    'seconds': times.wall,
    'cpu_seconds': times.cpu,
    'prefill_seconds': prefill.wall,
    'step_seconds': (times.wall - prefill.wall) / steps,
    'tokens_per_second': noise.shape[0] * noise.shape[1] / times.wall,
    'peak_gb': records.peak_gb(device),
  }
