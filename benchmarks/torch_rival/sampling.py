"""Flow sampling with cached prompts: all contexts of guidance in one batch.

A row is a prompt under one context. A layer's keys lie in one buffer: those of
the noised span, which every step overwrites, then the row's prompt, then
padding.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from benchmarks.torch_rival.attention import length_block_mask
from benchmarks.torch_rival.batch import Batch, prepare
from benchmarks.torch_rival.model import Rival
from synermedgen_jax.config.sampling import Context, Guidance, SamplingConfig
from synermedgen_jax.core.batch import Layout, PackedBatch
from synermedgen_jax.inference.sampling import Prompt


class Sampler:
  """Samples a fixed set of prompts; on a GPU, a step can be a CUDA graph."""

  def __init__(
    self,
    model: Rival,
    prompts: Mapping[Context, Prompt],
    latents: Mapping[Context, np.ndarray],
    config: SamplingConfig,
    *,
    by_example: bool,
    graph: bool = False,
  ):
    """
    Args:
      model: on its device, its parameters in its compute dtype.
      prompts: for the three contexts of BAGEL's guidance.
      latents: (b, g, d) clean latents of the conditions, by context.
      config: timesteps and guidance.
      by_example: rows attend one by one, and prompts without padding.
      graph: record a step once and replay it.
    """
    if tuple(prompts) != ('full', 'no_text', 'no_images'):
      raise ValueError(f'Three contexts are expected, got {tuple(prompts)}.')
    self.model, self.config, self.graph = model, config, graph
    device = model.vit_pos_embed.device
    conditions = _stacked([prompt.conditions for prompt in prompts.values()])
    target = _stacked([prompt.target for prompt in prompts.values()])
    self.prompt = prepare(conditions, device, by_example=by_example)
    self.clean = _clean_latents(conditions, latents.values(), self.prompt)
    self.places, lengths = _places(conditions, self.prompt)
    self.places = self.places.to(device)

    def tensor(values):
      return torch.from_numpy(np.asarray(values, np.int64)).to(device)

    self.markers = tensor(target.token_ids)
    self.latent_positions = tensor(target.latent_positions)
    self.positions = tensor(
      np.concatenate([target.und.positions, target.gen.positions], axis=1)
    )
    llm = model.config.llm
    rows, own = self.positions.shape
    shape = (rows, own + self.places.shape[1], llm.kv_heads, llm.head_dim)
    self.caches = [
      tuple(torch.zeros(shape, dtype=model.dtype, device=device) for _ in '12')
      for _ in range(llm.layers)
    ]
    lengths = tuple(own + length for length in lengths)
    self.visibility = lengths
    if not by_example:
      self.visibility = length_block_mask(
        torch.tensor(lengths, device=device), queries=own, keys=shape[1]
      )
    self._replay = None

  @torch.no_grad()
  def run(self, noise: torch.Tensor) -> torch.Tensor:
    """From noise (b, g, d) float32 to clean latents."""
    self.prefill()
    times = torch.from_numpy(self.config.timesteps).to(noise.device)
    if self.graph and self._replay is None:
      self._replay = self._recorded(noise, times[:1])
    velocity = self._replay or self.velocity
    latents = noise
    for i, (t, after) in enumerate(itertools.pairwise(self.config.timesteps)):
      v = velocity(latents, times[i : i + 1])
      latents = latents - float(t - after) * v
    return latents

  def prefill(self) -> None:
    """Runs the prompts and keeps their keys and values."""
    model, batch = self.model, self.prompt
    gen = None
    if self.clean.shape[1]:
      clean = torch.zeros_like(batch.noise_ids)
      start = torch.zeros(1, device=self.clean.device)
      gen = model.embed_latents(
        self.clean, start, clean, batch.latent_positions
      )
    _, _, keys = model.backbone(
      model.embed_und(batch), gen, batch.positions, batch.visibility()
    )
    own = self.positions.shape[1]
    for cache, new in zip(self.caches, keys, strict=True):
      for buffer, values in zip(cache, new, strict=True):
        buffer[:, own:] = values.flatten(0, 1)[self.places]

  def velocity(self, latents: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """The guided velocity (b, g, d) at timestep t (1,)."""
    model = self.model
    rows = len(self.latent_positions)
    gen = model.embed_latents(
      latents.repeat(rows // len(latents), 1, 1),
      t,
      torch.zeros_like(self.latent_positions),
      self.latent_positions,
    )
    und = model.embed_tokens(self.markers)
    _, gen, _ = model.backbone(
      und, gen, self.positions, self.visibility, self.caches
    )
    velocities = model.llm2vae(model.mot.gen_norm(gen)).float()
    return guide(*velocities.chunk(3), self.config.guidance)

  def _recorded(self, noise: torch.Tensor, t: torch.Tensor):
    """`velocity` as a CUDA graph over buffers of its own."""
    latents, time = noise.clone(), t.clone()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
      for _ in range(2):  # compiles, and allocates what libraries need
        self.velocity(latents, time)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
      out = self.velocity(latents, time)

    def replay(new_latents, new_time):
      latents.copy_(new_latents)
      time.copy_(new_time)
      graph.replay()
      return out

    return replay


def guide(full, no_text, no_images, guidance: Guidance) -> torch.Tensor:
  """Guidance for text, scaled back per token, then guidance for images."""
  if guidance.renorm != 'text_channel' or guidance.interval != (0.0, 1.0):
    raise ValueError("Only BAGEL's guidance is implemented.")
  guided = no_text + guidance.text * (full - no_text)
  factor = full.norm(dim=-1, keepdim=True) / (
    guided.norm(dim=-1, keepdim=True) + 1e-8
  )
  guided = guided * factor.clamp(guidance.renorm_min, 1.0)
  return no_images + guidance.image * (guided - no_images)


def _stacked(batches: Sequence[PackedBatch]) -> PackedBatch:
  """The rows of batches of unequal capacities, padded to the largest."""

  def stack(parts, fill=0):
    parts = [np.asarray(part) for part in parts]
    longest = max(part.shape[1] for part in parts)
    return np.concatenate(
      [
        np.pad(
          part,
          [(0, 0), (0, longest - part.shape[1])] + [(0, 0)] * (part.ndim - 2),
          constant_values=fill,
        )
        for part in parts
      ]
    )

  def field(name):
    values = [getattr(batch, name) for batch in batches]
    if isinstance(values[0], int):
      return values[0]
    if isinstance(values[0], Layout):
      return Layout(
        **{n: stack([getattr(v, n) for v in values]) for n in vars(values[0])}
      )
    return stack(values, -1 if name == 'vit_index' else 0)

  return PackedBatch(**{name: field(name) for name in vars(batches[0])})


def _clean_latents(conditions: PackedBatch, latents, prepared: Batch):
  """Latents of all contexts for the prepared rows, (b, g, d)."""
  widest = conditions.gen.order.shape[1]
  rows = np.concatenate(
    [np.pad(x, [(0, 0), (0, widest - x.shape[1]), (0, 0)]) for x in latents]
  )
  if prepared.by_example:
    rows = rows[np.asarray(conditions.gen.example_ids) > 0][None]
  return torch.from_numpy(rows.astype(np.float32)).to(prepared.token_ids.device)


def _places(conditions: PackedBatch, prepared: Batch):
  """Where the tokens of every prompt are among all prepared tokens.

  Args:
    conditions: rows whose tokens precede their padding in each stream.
    prepared: the same.

  Returns:
    (r, s) places in the flattened rows, and the number of tokens per row.
  """
  und, gen = (
    (np.asarray(layout.example_ids) > 0).sum(1)
    for layout in (conditions.und, conditions.gen)
  )
  rows, tokens = prepared.positions.shape
  if prepared.by_example:
    und_start = np.cumsum(und) - und
    gen_start = und.sum() + np.cumsum(gen) - gen
  else:
    und_start = np.arange(rows) * tokens
    gen_start = und_start + conditions.und.order.shape[1]
  lengths = und + gen
  places = np.zeros((len(und), lengths.max()), np.int64)
  for i, row in enumerate(places):
    row[: und[i]] = und_start[i] + np.arange(und[i])
    row[und[i] : lengths[i]] = gen_start[i] + np.arange(gen[i])
  return torch.from_numpy(places), lengths.tolist()
