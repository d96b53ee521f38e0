"""Two systems of the arena, a regression U-Net and pix2pix, and their step.

The networks, losses and statistics of norms are those of
`synermedgen_jax.baselines`, and modules are named as its parameters, so that
these can be loaded (`load_jax_params`). Images are (b, c, h, w) and contiguous:
on a CPU, PyTorch runs these networks 10 to 20 % faster so than channels last.

pix2pix updates both networks at once, as the library does: one pass through the
generator, and one through the critic for each of the real and the generated
images. The published program updates the critic first, and then has to pass the
generated images through it once more.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from ml_collections import ConfigDict
from torch import nn

from synermedgen_jax.baselines.networks.pix2pix_unet import Pix2PixUNetConfig
from synermedgen_jax.baselines.pair_data import PairBatch
from synermedgen_jax.baselines.pix2pix import Pix2PixConfig
from synermedgen_jax.baselines.unet_regression import UNetRegressionConfig
from synermedgen_jax.core.trees import flatten
from synermedgen_jax.models.unet import UNetConfig

_EPSILON = 1e-5


@dataclasses.dataclass(frozen=True)
class Batch:
  """Images and what the networks are told.

  Attributes:
    source, target: (b, 1, h, w).
    condition: (b, k), source and target as two one-hot vectors.
  """

  source: torch.Tensor
  target: torch.Tensor
  condition: torch.Tensor


def prepare(batch: PairBatch, modalities: int) -> Batch:
  """The library's batch for the rival.

  Args:
    batch: NumPy arrays.
    modalities: number of modalities of the run.
  """
  source, target = (
    torch.from_numpy(np.moveaxis(x, -1, 1)).contiguous()
    for x in (batch.source, batch.target)
  )
  hot = [
    F.one_hot(torch.from_numpy(ids).long(), modalities)
    for ids in (batch.source_ids, batch.target_ids)
  ]
  return Batch(source, target, torch.cat(hot, dim=1).float())


class Norm(nn.Module):
  """Normalisation of groups of channels of each image, with scale and shift.

  All single channels of all images are one batch normalisation, whose scale and
  shift absorb those of the condition: one pass over the image.
  """

  def __init__(self, width: int, planes: int = 0, group_size: int = 1):
    """
    Args:
      width: channels.
      planes: length of the condition; 0 = there is none.
      group_size: channels that a norm takes together.
    """
    super().__init__()
    self.group_size = group_size
    self.scale = nn.Parameter(torch.ones(width))
    self.bias = nn.Parameter(torch.zeros(width))
    self.condition = (
      nn.Linear(planes, 2 * width, bias=False) if planes else None
    )

  def forward(self, x, condition=None):
    scale, shift = (
      parameter.expand(len(x), -1) for parameter in (self.scale, self.bias)
    )
    if self.condition is not None:
      gain, offset = self.condition(condition).chunk(2, dim=1)
      scale, shift = scale * (1 + gain), shift * (1 + gain) + offset
    if self.group_size > 1:
      x = F.group_norm(x, x.shape[1] // self.group_size, eps=_EPSILON)
      return torch.addcmul(shift[..., None, None], x, scale[..., None, None])
    y = F.batch_norm(
      x.reshape(1, -1, *x.shape[2:]),
      None,
      None,
      scale.flatten(),
      shift.flatten(),
      training=True,
      eps=_EPSILON,
    )
    return y.view(x.shape)


class ConvNorm(nn.Module):
  """A convolution and a norm."""

  def __init__(self, inputs, outputs, planes, group_size, stride=1):
    super().__init__()
    self.conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1)
    self.norm = Norm(outputs, planes, group_size)

  def forward(self, x, condition):
    return self.norm(self.conv(x), condition)


class ResidualBlock(nn.Module):
  """Two convolutions and a bare shortcut, as in ResNet-D."""

  def __init__(self, inputs, outputs, planes, group_size, stride=1):
    super().__init__()
    self.stride = stride
    self.conv_0 = ConvNorm(inputs, outputs, planes, group_size, stride)
    self.conv_1 = ConvNorm(outputs, outputs, planes, group_size)
    self.shortcut = nn.Conv2d(inputs, outputs, 1)

  def forward(self, x, condition):
    y = F.leaky_relu(self.conv_0(x, condition), 0.01, inplace=True)
    y = self.conv_1(y, condition)
    if self.stride > 1:
      x = F.avg_pool2d(x, self.stride)
    return F.leaky_relu(self.shortcut(x) + y, 0.01, inplace=True)


class UNet(nn.Module):
  """The regression U-Net with a residual block in every stage."""

  def __init__(self, c: UNetConfig, planes: int):
    """
    Args:
      c: bare residual blocks in encoder and decoder, one a stage; the widths
        of neighbouring stages differ.
      planes: length of the condition.
    """
    super().__init__()
    self.stages = c.stages
    norm = planes, c.group_size
    inputs = 1
    for stage, width in enumerate(c.widths):
      stride = 1 if stage == 0 else 2
      down = ResidualBlock(inputs, width, *norm, stride)
      self.add_module(f'down_{stage}', nn.ModuleDict({'block_0': down}))
      inputs = width
    for stage, width in enumerate(c.widths[:-1]):
      deeper = c.widths[stage + 1]
      self.add_module(
        f'upsample_{stage}', nn.ConvTranspose2d(deeper, width, 2, 2)
      )
      up = ResidualBlock(2 * width, width, *norm)
      self.add_module(f'up_{stage}', nn.ModuleDict({'block_0': up}))
    self.out = nn.Conv2d(c.width, 1, 1)

  def forward(self, x, condition):
    skips = []
    for stage in range(self.stages):
      x = self.get_submodule(f'down_{stage}.block_0')(x, condition)
      skips.append(x)
    x = skips.pop()
    for stage in reversed(range(self.stages - 1)):
      x = self.get_submodule(f'upsample_{stage}')(x)
      x = torch.cat([x, skips.pop()], dim=1)
      x = self.get_submodule(f'up_{stage}.block_0')(x, condition)
    return self.out(x)


class Pix2PixUNet(nn.Module):
  """The generator of pix2pix."""

  def __init__(self, c: Pix2PixUNetConfig, inputs: int):
    super().__init__()
    self.levels, self.dropout_levels = c.levels, c.dropout_levels
    for level, width in enumerate(c.widths):
      down = nn.Conv2d(inputs, width, 4, 2, padding=1, bias=False)
      self.add_module(f'down_{level}', down)
      if 0 < level < c.levels - 1:
        self.add_module(f'down_norm_{level}', Norm(width))
      deeper = width if level == c.levels - 1 else 2 * width
      outputs = c.widths[level - 1] if level else c.out_channels
      up = nn.ConvTranspose2d(deeper, outputs, 4, 2, padding=1, bias=level == 0)
      self.add_module(f'up_{level}', up)
      if level:
        self.add_module(f'up_norm_{level}', Norm(outputs))
      inputs = width

  def forward(self, x):
    skips = []
    for level in range(self.levels):
      if level:
        # In place also for the skip, which goes through a ReLU alone.
        x = F.leaky_relu(x, 0.2, inplace=True)
      x = self.get_submodule(f'down_{level}')(x)
      if 0 < level < self.levels - 1:
        x = self.get_submodule(f'down_norm_{level}')(x)
      skips.append(x)
    x = skips.pop()
    for level in reversed(range(1, self.levels)):
      x = self.get_submodule(f'up_{level}')(F.relu(x, inplace=True))
      x = self.get_submodule(f'up_norm_{level}')(x)
      if level in self.dropout_levels:
        x = F.dropout(x, 0.5, self.training)
      x = torch.cat([skips.pop(), x], dim=1)
    return torch.tanh(self.up_0(F.relu(x, inplace=True)))


class PatchGAN(nn.Module):
  """The critic of pix2pix: images to one logit per patch."""

  def __init__(self, inputs: int, channels: int):
    super().__init__()
    for number, (factor, stride) in enumerate(((1, 2), (2, 2), (4, 2), (8, 1))):
      width = factor * channels
      conv = nn.Conv2d(inputs, width, 4, stride, padding=1, bias=number == 0)
      self.add_module(f'conv_{number}', conv)
      if number:
        self.add_module(f'norm_{number}', Norm(width))
      inputs = width
    self.out = nn.Conv2d(inputs, 1, 4, padding=1)

  def forward(self, x):
    for number in range(4):
      x = self.get_submodule(f'conv_{number}')(x)
      if number:
        x = self.get_submodule(f'norm_{number}')(x)
      x = F.leaky_relu(x, 0.2, inplace=True)
    return self.out(x)


class UNetRegression(nn.Module):
  """A U-Net that predicts the target, by its absolute error."""

  def __init__(self, c: UNetRegressionConfig):
    super().__init__()
    self.generator = UNet(c.generator, c.setting.planes)

  def backward(self, batch: Batch) -> dict[str, torch.Tensor]:
    """Adds the gradients, and returns the terms of the loss."""
    made = self.generator(batch.source, batch.condition)
    error = F.l1_loss(made, batch.target)
    error.backward()
    return {'l1': error.detach()}


class Pix2Pix(nn.Module):
  """A generator, and a critic of (source, image)."""

  def __init__(self, c: Pix2PixConfig):
    super().__init__()
    planes = c.setting.planes
    self.generator = Pix2PixUNet(c.generator, 1 + planes)
    self.critic = PatchGAN(2 + planes, c.critic_channels)

  def backward(self, batch: Batch) -> dict[str, torch.Tensor]:
    """Adds the gradients of both networks, and returns the terms of the loss.

    The term of each network reaches its parameters alone.
    """
    planes = batch.condition[:, :, None, None]
    planes = planes.expand(-1, -1, *batch.source.shape[2:])
    fake = self.generator(torch.cat([batch.source, planes], dim=1))
    on_real, on_fake = (
      self.critic(torch.cat([batch.source, image, planes], dim=1))
      for image in (batch.target, fake)
    )
    adversarial, l1 = _logistic(on_fake, 1.0), F.l1_loss(fake, batch.target)
    critic = (_logistic(on_real, 1.0) + _logistic(on_fake, 0.0)) / 2
    critic.backward(retain_graph=True, inputs=list(self.critic.parameters()))
    (adversarial + 100 * l1).backward(inputs=list(self.generator.parameters()))
    return {
      'adversarial': adversarial.detach(),
      'l1': l1.detach(),
      'critic': critic.detach(),
    }


def _logistic(logits: torch.Tensor, label: float) -> torch.Tensor:
  labels = torch.full_like(logits, label)
  return F.binary_cross_entropy_with_logits(logits, labels)


SYSTEMS = {'unet': UNetRegression, 'pix2pix': Pix2Pix}


class Trainer:
  """A system in training on a CPU."""

  def __init__(self, system: UNetRegression | Pix2Pix, config: ConfigDict):
    """
    Args:
      system: its networks.
      config: of the system; the constants of AdamW are read. The rate is
        constant, and gradients are not clipped.
    """
    self.system = system
    matrices = [p for p in system.parameters() if p.ndim > 1]
    others = [p for p in system.parameters() if p.ndim <= 1]
    self.optimizer = torch.optim.AdamW(
      [
        {'params': matrices, 'weight_decay': config.weight_decay},
        {'params': others, 'weight_decay': 0.0},
      ],
      lr=config.learning_rate,
      betas=(config.b1, config.b2),
      eps=config.eps,
      fused=True,
    )

  def step(self, batch: Batch) -> dict[str, torch.Tensor]:
    """One update; returns the terms of the loss."""
    terms = self.system.backward(batch)
    self.optimizer.step()
    self.optimizer.zero_grad()
    return terms


@torch.no_grad()
def load_jax_params(system: nn.Module, params: Any) -> None:
  """Copies the library's nested parameters into a system.

  Raises:
    KeyError: naming a parameter that the library's do not have.
  """
  flat = flatten(params)
  for name, parameter in system.named_parameters():
    parameter.copy_(torch.from_numpy(from_jax(system, name, flat)))


def from_jax(system: nn.Module, name: str, flat: dict[str, Any]) -> np.ndarray:
  """The value of the system's parameter `name` among the library's.

  Raises:
    KeyError: the library's have no such parameter.
  """
  owner, _, last = name.rpartition('.')
  last = 'kernel' if last == 'weight' else last
  value = np.asarray(flat[f'{owner}.{last}'.replace('.', '/')])
  if last != 'kernel':
    return np.array(value)
  match system.get_submodule(owner):
    case nn.ConvTranspose2d():  # the gradient of a convolution: mirrored
      value = value[::-1, ::-1].transpose(2, 3, 0, 1)
    case nn.Conv2d():
      value = value.transpose(3, 2, 0, 1)
    case nn.Linear():
      value = value.T
  return np.array(value, order='C')
