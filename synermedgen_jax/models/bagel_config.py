"""The shape of the whole model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from synermedgen_jax.core.batch import ImageGeometry
from synermedgen_jax.models.autoencoder import AutoencoderConfig
from synermedgen_jax.models.codes import GENERATIONS
from synermedgen_jax.models.detail import detail_unet
from synermedgen_jax.models.mot import MoTConfig
from synermedgen_jax.models.vit import ViTConfig


@dataclasses.dataclass(frozen=True)
class BagelConfig:
  """Shape of the whole model.

  Attributes:
    llm, vit, autoencoder: shapes of the parts.
    latent_patch: latents per token along each axis.
    latent_table: side of the latent position table, in tokens.
    vit_table: side of the position table added after the connector, in patches.
    connector_norm: RMS-normalise the connector's output. Not in BAGEL.
    generation: how images are generated, one of `codes.GENERATIONS`. BAGEL has
      'flow'.
    detail: channels of the detail path at full resolution; 0 = none, as BAGEL.

  Raises:
    ValueError: `generation` or `detail` has another value, or they do not go
      together.
  """

  llm: MoTConfig
  vit: ViTConfig
  autoencoder: AutoencoderConfig
  latent_patch: int = 2
  latent_table: int = 64
  vit_table: int = 70
  connector_norm: bool = False
  generation: str = 'flow'
  detail: int = 0

  def __post_init__(self):
    if self.detail:
      detail_unet(self.detail, self.latent_stride)  # refuses other widths
      if self.generation != 'flow':
        raise ValueError(
          f'detail {self.detail}: has no part in {self.generation!r} '
          "generation; set detail to 0, or generation to 'flow'."
        )
    if self.generation not in GENERATIONS:
      raise ValueError(
        f'{self.generation!r}: expected one of {", ".join(GENERATIONS)}.'
      )

  @property
  def latent_stride(self) -> int:
    """Pixels per latent token, along each axis."""
    return self.autoencoder.downsample * self.latent_patch

  @property
  def latent_dim(self) -> int:
    """Numbers per latent token."""
    return self.latent_patch**2 * self.autoencoder.z_channels

  def image_geometry(
    self, *, vit_size: Sequence[int], vae_size: Sequence[int]
  ) -> ImageGeometry:
    """The token grids of images with these heights and widths, in pixels.

    Raises:
      ValueError: a size does not fit; see `ImageGeometry`.
    """
    return ImageGeometry(
      vit_size=tuple(vit_size),
      vit_patch=self.vit.patch,
      vit_table=self.vit_table,
      vae_size=tuple(vae_size),
      latent_stride=self.latent_stride,
      latent_table=self.latent_table,
      channels=self.autoencoder.channels,
      causal_targets=self.generation == 'autoregressive',
    )
