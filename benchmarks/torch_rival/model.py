"""The whole model: ViT, two experts with joint attention, projections.

Parameters are named as the library's, layer by layer, so that its weights can
be loaded (`load_jax_params`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from flax import traverse_util
from torch import nn
from torch.utils.checkpoint import checkpoint

from benchmarks.torch_rival.attention import attend
from benchmarks.torch_rival.batch import Batch
from benchmarks.torch_rival.layers import (
  Mlp,
  RMSNorm,
  Vit,
  gelu,
  rotary_tables,
  rotate,
  timestep_features,
)
from synermedgen_jax.models.bagel_config import BagelConfig
from synermedgen_jax.models.layers import sincos_table
from synermedgen_jax.models.mot import MoTConfig


class SwiGlu(nn.Module):
  """down(silu(gate(x)) * up(x))."""

  def __init__(self, width: int, hidden: int):
    super().__init__()
    self.gate_proj = nn.Linear(width, hidden, bias=False)
    self.up_proj = nn.Linear(width, hidden, bias=False)
    self.down_proj = nn.Linear(hidden, width, bias=False)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Expert(nn.Module):
  """One expert's weights in one layer."""

  def __init__(self, c: MoTConfig):
    super().__init__()
    self.dim = c.head_dim
    self.input_norm = RMSNorm(c.hidden, c.norm_eps)
    self.q_proj = nn.Linear(c.hidden, c.heads * c.head_dim)
    self.k_proj = nn.Linear(c.hidden, c.kv_heads * c.head_dim)
    self.v_proj = nn.Linear(c.hidden, c.kv_heads * c.head_dim)
    self.o_proj = nn.Linear(c.heads * c.head_dim, c.hidden, bias=False)
    normed = c.qk_norm
    self.q_norm = RMSNorm(c.head_dim, c.norm_eps) if normed else nn.Identity()
    self.k_norm = RMSNorm(c.head_dim, c.norm_eps) if normed else nn.Identity()
    self.post_norm = RMSNorm(c.hidden, c.norm_eps)
    self.mlp = SwiGlu(c.hidden, c.mlp)

  def project(self, x: torch.Tensor, tables):
    """Queries, keys and values (b, t, heads, d)."""
    x = self.input_norm(x)
    query, key, value = (
      projection(x).unflatten(-1, (-1, self.dim))
      for projection in (self.q_proj, self.k_proj, self.v_proj)
    )
    query = rotate(self.q_norm(query), tables)
    return query, rotate(self.k_norm(key), tables), value

  def finish(self, x: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
    x = x + self.o_proj(attended.flatten(2))
    return x + self.mlp(self.post_norm(x))


class MotLayer(nn.Module):
  """Both experts in one layer."""

  def __init__(self, c: MoTConfig):
    super().__init__()
    self.und = Expert(c)
    self.gen = Expert(c)

  def forward(self, und, gen, tables, visibility, cache=None, detach=False):
    """One layer.

    Args:
      und: (b, u, e).
      gen: (b, g, e), or None.
      tables: of `rotary_tables`, over both streams.
      visibility: what `attend` takes.
      cache: keys and values (b, u + g + s, n, d), the first u + g of which are
        overwritten; or None.
      detach: no gradient flows through the und stream.

    Returns:
      und, gen, and the keys and values of these tokens.
    """
    u = und.shape[1]
    cos, sin = tables
    projected = self.und.project(und, (cos[:, :u], sin[:, :u]))
    if detach:
      projected = tuple(x.detach() for x in projected)
    if gen is not None:
      other = self.gen.project(gen, (cos[:, u:], sin[:, u:]))
      projected = (
        torch.cat(pair, dim=1) for pair in zip(projected, other, strict=True)
      )
    query, key, value = projected
    new = key, value
    if cache is not None:
      for kept, part in zip(cache, new, strict=True):
        kept[:, : part.shape[1]] = part
      key, value = cache
    attended = attend(query, key, value, visibility)
    seen = attended[:, :u].detach() if detach else attended[:, :u]
    und = self.und.finish(und, seen)
    if gen is not None:
      gen = self.gen.finish(gen, attended[:, u:])
    return und, gen, new


class Mot(nn.Module):
  """The layers and the final norms."""

  def __init__(self, c: MoTConfig):
    super().__init__()
    self.config = c
    self.layers = nn.ModuleList(MotLayer(c) for _ in range(c.layers))
    self.und_norm = RMSNorm(c.hidden, c.norm_eps)
    self.gen_norm = RMSNorm(c.hidden, c.norm_eps)


class Rival(nn.Module):
  """The model; `losses` is what training differentiates.

  Attributes:
    remat: recompute every layer in the backward pass.
    detach: no gradient flows through the und stream (BAGEL's `freeze_und`).
    dtype: of the activations; parameters are cast by autocast.
  """

  def __init__(
    self,
    c: BagelConfig,
    *,
    dtype: torch.dtype = torch.float32,
    remat: bool = False,
    detach: bool = False,
  ):
    super().__init__()
    self.config, self.dtype = c, dtype
    self.remat, self.detach = remat, detach
    width = c.llm.hidden
    self.embed_tokens = nn.Embedding(c.llm.vocab, width)
    self.mot = Mot(c.llm)
    self.lm_head = nn.Linear(width, c.llm.vocab, bias=False)
    self.vit = Vit(c.vit)
    self.connector = Mlp((c.vit.hidden, width, width), gelu)
    if c.connector_norm:
      self.connector.norm = RMSNorm(width, c.llm.norm_eps)
    self.time_embedder = Mlp((256, width, width), F.silu)
    self.vae2llm = nn.Linear(c.latent_dim, width)
    self.llm2vae = nn.Linear(width, c.latent_dim)
    self.vit_pos_embed = nn.Parameter(_table(c, c.vit_table))
    self.latent_pos_embed = nn.Parameter(_table(c, c.latent_table))

  def compile_layers(self) -> None:
    """Compiles the layer of each stack, once for all its layers."""
    for layer in (*self.vit.layers, *self.mot.layers):
      layer.compile(dynamic=False, fullgraph=True)

  def run(self, layer: nn.Module, *arguments):
    """Calls a layer, with checkpointing if asked for."""
    if self.remat and torch.is_grad_enabled():
      return checkpoint(
        layer, *arguments, use_reentrant=False, preserve_rng_state=False
      )
    return layer(*arguments)

  def embed_und(self, batch: Batch) -> torch.Tensor:
    """Text embeddings, with the ViT's tokens in their places: (b, u, e)."""
    x = self.embed_tokens(batch.token_ids).to(self.dtype)
    if not len(batch.patches):
      return x
    seen = self.connector(
      self.vit(batch.patches.to(self.dtype), batch.patch_positions, self.run)
    )
    if self.config.connector_norm:
      seen = self.connector.norm(seen)
    seen = seen + self.vit_pos_embed[batch.patch_positions].to(seen.dtype)
    flat = x.flatten(0, 1).index_copy(
      0, batch.patch_places, seen.flatten(0, 1).to(x.dtype)
    )
    return flat.view_as(x)

  def embed_latents(self, latents, times, noise_ids, positions) -> torch.Tensor:
    """Latents (b, g, d) to tokens (b, g, e).

    Args:
      latents: noised where `noise_ids` > 0.
      times: (n,) timesteps by noise id; the first is 0.
      noise_ids: (b, g).
      positions: (b, g) rows of the position table.
    """
    times = self.time_embedder(timestep_features(times).to(self.dtype))
    x = self.vae2llm(latents.to(self.dtype)) + times[noise_ids]
    return (x + self.latent_pos_embed[positions].to(x.dtype)).to(self.dtype)

  def backbone(self, und, gen, positions, visibility, caches=None):
    """The layers.

    Args:
      und, gen: the streams; gen may be None.
      positions: (b, u + g) of both.
      visibility: what `attend` takes.
      caches: of every layer, or None.

    Returns:
      und, gen before their final norms; without gradients and caches, the
      keys and values of every layer.
    """
    c = self.mot.config
    tables = rotary_tables(positions, c.head_dim, c.rope_theta)
    keys = []
    for i, layer in enumerate(self.mot.layers):
      cache = caches[i] if caches else None
      und, gen, new = self.run(
        layer, und, gen, tables, visibility, cache, self.detach
      )
      if caches is None and not torch.is_grad_enabled():
        keys.append(new)
    return und, gen, keys

  def losses(self, batch: Batch, latents=None, noise=None, times=None):
    """The next-token and the flow loss; zero where a batch has none.

    Args:
      batch: prepared rows.
      latents, noise: (b, g, d), or None without a gen stream.
      times: (n,) timesteps by noise id; the first is 0.
    """
    gen = None
    if latents is not None:
      t = times[batch.noise_ids][..., None]
      noised = (1 - t) * latents + t * noise
      gen = self.embed_latents(
        noised, times, batch.noise_ids, batch.latent_positions
      )
    und, gen, _ = self.backbone(
      self.embed_und(batch), gen, batch.positions, batch.visibility()
    )
    text = flow = torch.zeros((), device=und.device)
    if len(batch.labels):
      hidden = self.mot.und_norm(und.flatten(0, 1)[batch.label_places])
      each = F.cross_entropy(
        self.lm_head(hidden).float(), batch.labels, reduction='none'
      )
      text = (each * batch.label_weights).sum()
    if gen is not None and len(batch.noised_places):
      hidden = self.mot.gen_norm(gen.flatten(0, 1)[batch.noised_places])
      wanted = (noise - latents).flatten(0, 1)[batch.noised_places]
      flow = F.mse_loss(self.llm2vae(hidden).float(), wanted)
    return text, flow


def _table(c: BagelConfig, side: int) -> torch.Tensor:
  return torch.tensor(sincos_table(side, c.llm.hidden))


def jax_name(name: str) -> tuple[str, int | None]:
  """The library's name of a parameter, and its layer if it is one of many.

  'mot.layers.3.und.q_proj.weight' -> ('mot/layers/und/q_proj/kernel', 3)
  """
  *path, last = name.split('.')
  layer = next((int(part) for part in path if part.isdecimal()), None)
  path = [part for part in path if not part.isdecimal()]
  if last == 'weight':
    owner = path[-1]
    last = 'scale' if 'norm' in owner else 'kernel'
    last = 'embedding' if owner == 'embed_tokens' else last
  return '/'.join([*path, last]), layer


@torch.no_grad()
def load_jax_params(model: Rival, params: Any) -> None:
  """Copies the library's nested parameters into the model.

  Raises:
    KeyError: naming a parameter that the library's do not have.
  """
  flat = traverse_util.flatten_dict(params, sep='/')
  for name, parameter in model.named_parameters():
    source, layer = jax_name(name)
    value = np.asarray(flat[source])
    if layer is not None:
      value = value[layer]
    if source.endswith('/kernel'):
      value = value.T
    parameter.copy_(torch.from_numpy(np.array(value, np.float32)))
