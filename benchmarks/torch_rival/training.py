"""A training step: losses, gradients, clipping, AdamW, averaged weights."""

from __future__ import annotations

import torch
from ml_collections import ConfigDict

from benchmarks.torch_rival.batch import Batch
from benchmarks.torch_rival.model import Rival, jax_name
from synermedgen_jax.models.flow import shift_timestep
from synermedgen_jax.training.optim import multipliers


class Trainer:
  """A model in training on one device.

  Trained parameters are float32, frozen ones have the model's compute dtype.
  """

  def __init__(self, model: Rival, config: ConfigDict):
    """
    Args:
      model: on its device.
      config: of the stage; `trainable`, `objective` and the optimiser's keys
        are read.
    """
    self.model, self.config = model, config
    self.device = model.vit_pos_embed.device
    names = {name: jax_name(name)[0] for name, _ in model.named_parameters()}
    rates = multipliers(
      sorted(set(names.values())),
      # The rival has no autoencoder.
      [row for row in config.trainable if not row[0].startswith('autoencoder')],
    )
    groups: dict[tuple[float, bool], list] = {}
    for name, parameter in model.named_parameters():
      rate = rates[names[name]]
      parameter.requires_grad_(rate > 0)
      if rate > 0:
        groups.setdefault((rate, parameter.ndim > 1), []).append(parameter)
      else:
        parameter.data = parameter.data.to(model.dtype)
    self.trained = [p for group in groups.values() for p in group]
    self.optimizer = torch.optim.AdamW(
      [
        {
          'params': group,
          'lr': rate * config.learning_rate,
          'weight_decay': config.weight_decay * decayed,
        }
        for (rate, decayed), group in groups.items()
      ],
      betas=(config.b1, config.b2),
      eps=config.eps,
      fused=True,
    )
    self.ema = [p.detach().clone() for p in self.trained if config.ema > 0]

  def loss(self, batch: Batch, latents=None, noise=None, times=None):
    """The weighted sum of both losses, under autocast where it is bfloat16."""
    objective = self.config.objective
    with torch.autocast(
      self.device.type,
      dtype=torch.bfloat16,
      enabled=self.model.dtype == torch.bfloat16,
    ):
      text, flow = self.model.losses(batch, latents, noise, times)
    return (
      objective.get('ntp_weight', 1.0) * text
      + objective.get('flow_weight', 1.0) * flow
    )

  def draw(self, batch: Batch, latents: torch.Tensor):
    """Noise like the latents, and timesteps by noise id, the first one 0."""
    times = torch.sigmoid(torch.randn(batch.noises + 1, device=self.device))
    shift = self.config.objective.get('train_shift', 1.0)
    times = shift_timestep(times, shift)
    times[0] = 0
    return torch.randn_like(latents), times

  def step(self, batch: Batch, latents: torch.Tensor | None) -> torch.Tensor:
    """One update; returns the loss, still on the device."""
    drawn = () if latents is None else self.draw(batch, latents)
    loss = self.loss(batch, latents, *drawn)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(self.trained, self.config.clip)
    self.optimizer.step()
    self.optimizer.zero_grad()
    if self.ema:
      with torch.no_grad():
        torch._foreach_lerp_(self.ema, self.trained, 1 - self.config.ema)
    return loss.detach()
