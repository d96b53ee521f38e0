"""Building blocks: norms, rotary positions, the ViT, small projections."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.torch_rival.attention import attend_densely
from synermedgen_jax.models.vit import ViTConfig


class RMSNorm(nn.Module):
  """x / rms(x) in float32, times a weight in x's dtype."""

  def __init__(self, width: int, eps: float):
    super().__init__()
    self.weight = nn.Parameter(torch.ones(width))
    self.eps = eps

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    wide = x.float()
    scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
    return (wide * scale).to(x.dtype) * self.weight.to(x.dtype)


class Mlp(nn.Module):
  """Two linear layers with a non-linearity between them."""

  def __init__(self, sizes: tuple[int, int, int], activation):
    super().__init__()
    self.fc1 = nn.Linear(sizes[0], sizes[1])
    self.fc2 = nn.Linear(sizes[1], sizes[2])
    self.activation = activation

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    return self.fc2(self.activation(self.fc1(x)))


def gelu(x: torch.Tensor) -> torch.Tensor:
  """The tanh approximation."""
  return F.gelu(x, approximate='tanh')


def rotary_tables(
  positions: torch.Tensor, dim: int, theta: float
) -> tuple[torch.Tensor, torch.Tensor]:
  """Cosines and sines, (b, t, 1, dim / 2) float32."""
  half = torch.arange(dim // 2, dtype=torch.float32, device=positions.device)
  angle = positions[..., None, None].float() * theta ** (-half / (dim // 2))
  return angle.cos(), angle.sin()


def rotate(x: torch.Tensor, tables) -> torch.Tensor:
  """x (b, t, h, d) turned by its position, in float32."""
  cos, sin = tables
  left, right = x.float().chunk(2, dim=-1)
  turned = (left * cos - right * sin, right * cos + left * sin)
  return torch.cat(turned, dim=-1).to(x.dtype)


def timestep_features(t: torch.Tensor, dim: int = 256) -> torch.Tensor:
  """[cos, sin] features of timesteps (n,), (n, dim) float32."""
  half = torch.arange(dim // 2, dtype=torch.float32, device=t.device)
  angle = t[:, None] * torch.exp(-math.log(1e4) * half / (dim // 2))
  return torch.cat([angle.cos(), angle.sin()], dim=-1)


class VitLayer(nn.Module):
  """Pre-norm attention within each image, and an MLP."""

  def __init__(self, c: ViTConfig):
    super().__init__()
    self.heads = c.heads
    self.norm1 = nn.LayerNorm(c.hidden, eps=c.norm_eps)
    self.q_proj = nn.Linear(c.hidden, c.hidden)
    self.k_proj = nn.Linear(c.hidden, c.hidden)
    self.v_proj = nn.Linear(c.hidden, c.hidden)
    self.out_proj = nn.Linear(c.hidden, c.hidden)
    self.norm2 = nn.LayerNorm(c.hidden, eps=c.norm_eps)
    self.fc1 = nn.Linear(c.hidden, c.mlp)
    self.fc2 = nn.Linear(c.mlp, c.hidden)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    y = self.norm1(x)
    parts = (
      project(y).unflatten(-1, (self.heads, -1))
      for project in (self.q_proj, self.k_proj, self.v_proj)
    )
    x = x + self.out_proj(attend_densely(*parts).flatten(2))
    return x + self.fc2(gelu(self.fc1(self.norm2(x))))


class Vit(nn.Module):
  """Images of one size as a batch (n, p, d)."""

  def __init__(self, c: ViTConfig):
    super().__init__()
    self.position_embedding = nn.Parameter(
      0.02 * torch.randn(c.table**2, c.hidden)
    )
    self.patch_embedding = nn.Linear(c.patch**2 * c.channels, c.hidden)
    self.layers = nn.ModuleList(VitLayer(c) for _ in range(c.layers))
    self.post_norm = nn.LayerNorm(c.hidden, eps=c.norm_eps)

  def forward(self, patches, positions, run) -> torch.Tensor:
    """`run(layer, *arguments)` calls a layer, perhaps with checkpointing."""
    x = self.patch_embedding(patches)
    x = x + self.position_embedding[positions].to(x.dtype)
    for layer in self.layers:
      x = run(layer, x)
    return self.post_norm(x)
