"""BAGEL: ViT, autoencoder and Mixture of Transformers as one model.

(modeling/bagel/bagel.py of ByteDance-Seed/BAGEL.) One body serves training
and inference: training runs both streams at once, inference runs the same
`backbone` with cached keys.
"""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from synermedgen_jax.core.batch import (
  Capacity,
  PackedBatch,
  abstract_batch,
)
from synermedgen_jax.core.trees import flatten
from synermedgen_jax.models.autoencoder import (
  Autoencoder,
  depth_to_space,
  space_to_depth,
)
from synermedgen_jax.models.bagel_config import BagelConfig
from synermedgen_jax.models.canvases import (
  Sources,
  seen_latents,
  sources_of_prompts,
)
from synermedgen_jax.models.codes import CODES, Quantiser
from synermedgen_jax.models.compute import Compute
from synermedgen_jax.models.detail import Detail, detail_unet
from synermedgen_jax.models.layers import (
  Connector,
  TimestepEmbedder,
  constrain_rows,
  linear,
  named,
  offset_features,
  sincos_table,
  take_in_rows,
)
from synermedgen_jax.models.mot import Cache, MoT, Tokens
from synermedgen_jax.models.vit import ViT


class Bagel(nn.Module):
  """The whole model; its methods are the steps of training and inference.

  Attributes:
    config: shape.
    compute: compute settings.
  """

  config: BagelConfig
  compute: Compute

  def setup(self):
    c = self.config
    dtype = jnp.dtype(self.compute.dtype)
    width = c.llm.hidden
    self.embed_tokens = nn.Embed(
      c.llm.vocab,
      width,
      dtype=dtype,
      embedding_init=named(nn.initializers.normal(0.02), 'vocab', 'embed'),
    )
    self.mot = MoT(c.llm, self.compute)
    self.lm_head = linear(
      c.llm.vocab,
      ('embed', 'vocab'),
      use_bias=False,
      dtype=dtype,
      init=nn.initializers.normal(0.02),
    )
    self.vit = ViT(c.vit, self.compute)
    self.connector = Connector(
      width, c.llm.norm_eps if c.connector_norm else None, dtype
    )
    self.autoencoder = Autoencoder(c.autoencoder, dtype)
    self.time_embedder = TimestepEmbedder(width, dtype)
    self.vae2llm = linear(width, (None, 'embed'), dtype=dtype)
    if c.generation == 'flow':
      # Zero, so that the first predicted velocity is zero.
      self.llm2vae = linear(
        c.latent_dim, ('embed', None), dtype=dtype, init=nn.initializers.zeros
      )
    else:
      self.quantiser = Quantiser(c.latent_dim)
      self.llm2code = linear(CODES, ('embed', 'vocab'), dtype=dtype)

    if c.detail:
      self.detail = Detail(
        detail_unet(c.detail, c.latent_stride), c.autoencoder.channels, dtype
      )

    def table(name, side):
      values = sincos_table(side, width)
      return self.param(
        name,
        named(lambda *_: jnp.asarray(values), None, None),
      )

    self.vit_pos_embed = table('vit_pos_embed', c.vit_table)
    self.latent_pos_embed = table('latent_pos_embed', c.latent_table)

  def encode_images(
    self, patches, positions, visible_from, visible_to, image_patches: int = 0
  ):
    """ViT patches (b, p, d) to tokens of the und stream (b, p, e)."""
    x = self.vit(patches, positions, visible_from, visible_to, image_patches)
    x = self.connector(x)
    return constrain_rows(x + self.vit_pos_embed[positions].astype(x.dtype))

  def embed_und(
    self,
    token_ids: Int[Array, 'b u'],
    vit_index: Int[Array, 'b u'],
    vit_tokens: Float[Array, 'b p e'] | None,
  ) -> Float[Array, 'b u e']:
    """Text embeddings, with ViT tokens where `vit_index` >= 0."""
    # Sharded over features like the table, until each row has its vectors.
    token_ids = nn.with_logical_constraint(token_ids, ('lookup', 'length'))
    x = self.embed_tokens(token_ids)
    x = constrain_rows(
      nn.with_logical_constraint(x, ('lookup', 'length', 'embed'))
    )
    if vit_tokens is None:
      return x
    patches = take_in_rows(vit_tokens, jnp.maximum(vit_index, 0))
    return constrain_rows(jnp.where((vit_index >= 0)[..., None], patches, x))

  def embed_latents(
    self,
    latents: Float[Array, 'b g d'],
    t: Float[Array, 'b g'],
    latent_positions: Int[Array, 'b g'],
    latent_offsets: Int[Array, 'b g'],
  ) -> Float[Array, 'b g e']:
    """Latent tokens at timestep t to tokens of the gen stream.

    Args:
      latents: the (noised) latents.
      t: timestep per token, 0 for clean ones.
      latent_positions, latent_offsets: as of `PackedBatch`.
    """
    x = self.vae2llm(latents) + self.time_embedder(t)
    positions = self.latent_pos_embed[latent_positions]
    positions += offset_features(latent_offsets, positions.shape[-1])
    return constrain_rows(x + positions.astype(x.dtype))

  def backbone(
    self,
    streams: dict[str, Tokens],
    cache: Cache | None = None,
    *,
    return_keys: bool = False,
    detach_und: bool = False,
  ):
    """The Mixture of Transformers; see `MoT.__call__`."""
    return self.mot(
      streams, cache, return_keys=return_keys, detach_und=detach_und
    )

  def logits(self, hidden: Float[Array, 'b u e']) -> Float[Array, 'b u v']:
    """Next-token logits of und hidden states, float32."""
    return self.lm_head(hidden).astype(jnp.float32)

  def velocity(self, hidden: Float[Array, 'b g e']) -> Float[Array, 'b g d']:
    """The predicted velocity (noise - data) of latent tokens, float32."""
    return self.llm2vae(hidden).astype(jnp.float32)

  def code_logits(self, hidden: Float[Array, 'b g e']) -> Float[Array, 'b g k']:
    """Logits of the codes of latent tokens, float32."""
    return self.llm2code(hidden).astype(jnp.float32)

  def codes(self, latents: Float[Array, 'b g d']) -> Int[Array, 'b g']:
    """The codes of latent tokens."""
    return self.quantiser.codes(latents)

  def code_latents(self, codes: Int[Array, 'b g']) -> Float[Array, 'b g d']:
    """Latent tokens of codes."""
    return self.quantiser.from_codes(codes)

  def quantise(self, latents: Float[Array, '*t d']) -> Float[Array, '*t d']:
    """Latent tokens as the model can generate them: unchanged by a flow."""
    if self.config.generation == 'flow':
      return latents
    return self.quantiser(latents)

  @nn.nowrap
  def initial_params(self, key: jax.Array) -> Any:
    """Random parameters; see `init_params`."""
    return init_params(self.config, key)

  @nn.nowrap
  def abstract_params(self) -> Any:
    """Shapes of the parameters; see `abstract_params`."""
    return abstract_params(self.config)

  @nn.nowrap
  def initial_memory(self) -> dict[str, Array]:
    """Nothing is carried from step to step beside the parameters."""
    return {}

  def encode_latents(
    self,
    images: Float[Array, 'n h w c'],
    valid: Bool[Array, 'n h w'] | None = None,
  ) -> Float[Array, 'n y x d']:
    """Canvases to grids of clean latent tokens (scaled and shifted).

    Args:
      images, valid: as of `Autoencoder.moments`.
    """
    return space_to_depth(
      self.autoencoder.encode(images, valid), self.config.latent_patch
    )

  def decode_latents(
    self, tokens: Float[Array, 'n y x d']
  ) -> Float[Array, 'n h w c']:
    """Grids of latent tokens to pictures."""
    return self.autoencoder.decode(
      depth_to_space(tokens, self.config.latent_patch)
    )

  def pictures(
    self,
    tokens: Float[Array, 'b t y x d'],
    hidden: Float[Array, 'b t y x e'],
    sources: Sources | None,
    noise: Float[Array, 'k b t h w'],
  ) -> Float[Array, 'k b t h w c']:
    """Draws of the pictures of predicted latents.

    Without a detail path, all draws are equal.

    Args:
      tokens: grids of clean latent tokens.
      hidden: hidden states of the gen stream that predicted them.
      sources: what the images are made from, for the detail path.
      noise: standard normal, one image for each draw and target.
    """
    b, t = tokens.shape[:2]
    flat = self.decode_latents(tokens.reshape(b * t, *tokens.shape[2:]))
    pictures = flat.reshape(b, t, *flat.shape[1:])
    if not self.config.detail:
      return jnp.broadcast_to(pictures, (len(noise), *pictures.shape))
    return self.detail(pictures, hidden, sources, noise)

  def reconstruct(self, images: Float[Array, 'n h w c']):
    """Canvases through the autoencoder and, if there are any, codes."""
    return self.decode_latents(self.quantise(self.encode_latents(images)))

  def moments(self, images: Float[Array, 'n h w c']):
    """The autoencoder's posterior mean and log-variance."""
    return self.autoencoder.moments(images)

  def decode_raw(self, z: Float[Array, 'n y x z']) -> Float[Array, 'n h w c']:
    """Pictures from latents that were not shifted and scaled."""
    return self.autoencoder.decode_raw(z)

  def row_latents(self, batch: PackedBatch) -> Float[Array, 'b g d']:
    """The clean latent of every token of the gen stream."""
    b, n, h, w, _ = batch.vae_images.shape
    images = batch.vae_images.reshape(b * n, h, w, -1)
    valid = None
    if not batch.image_latents:
      stride = self.config.latent_stride
      valid = seen_latents(batch, h // stride, w // stride)
      valid = valid.repeat(stride, 1).repeat(stride, 2)
    grid = self.encode_latents(images, valid)
    tokens = grid.reshape(b, -1, grid.shape[-1])
    return take_in_rows(tokens, batch.latent_index)

  def embed_batch(
    self,
    batch: PackedBatch,
    latents: Float[Array, 'b g d'] | None = None,
    t: Float[Array, 'b g'] | None = None,
  ) -> dict[str, Tokens]:
    """The streams of a packed batch; no gen stream where G = 0.

    Args:
      batch: packed rows.
      latents: the (noised) latents of the gen stream at timestep `t`.
      t: timestep per latent token, 0 for clean ones.
    """
    vit_tokens = None
    if batch.vit_patches.shape[1]:
      vit_tokens = self.encode_images(
        batch.vit_patches,
        batch.vit_positions,
        batch.vit_visible_from,
        batch.vit_visible_to,
        batch.image_patches,
      )
    streams = {
      'und': _tokens(
        self.embed_und(batch.token_ids, batch.vit_index, vit_tokens),
        batch.und,
      )
    }
    if batch.latent_index.shape[1]:
      streams['gen'] = _tokens(
        self.embed_latents(
          latents, t, batch.latent_positions, batch.latent_offsets
        ),
        batch.gen,
      )
    return streams

  def __call__(self, batch: PackedBatch, noise, t):
    """Runs every part once; initialises the parameters."""
    latents = self.row_latents(batch)
    noised = (1 - t[..., None]) * latents + t[..., None] * noise
    hidden, _ = self.backbone(self.embed_batch(batch, noised, t))
    one = (latents.shape[0], 1, 1, 1, -1)
    self.pictures(
      self.quantise(latents)[:, :1].reshape(one),
      hidden['gen'][:, :1].reshape(one),
      sources_of_prompts(
        batch, batch.latent_offsets[:, :1], self.config.latent_stride
      )
      if self.config.detail
      else None,
      jnp.zeros((1, len(latents), 1, *batch.vae_images.shape[2:4])),
    )
    flow = self.config.generation == 'flow'
    predict = self.velocity if flow else self.code_logits
    return self.logits(hidden['und']), predict(hidden['gen'])


def _tokens(x, layout) -> Tokens:
  return Tokens(
    x=x,
    positions=layout.positions,
    order=layout.order,
    visible_from=layout.visible_from,
    visible_to=layout.visible_to,
  )


def init_params(config: BagelConfig, key: jax.Array):
  """Random float32 parameters, boxed with their logical axis names."""
  return Bagel(config, Compute(dtype='float32')).init(
    key,
    _example_batch(config),
    jnp.zeros((1, 1, config.latent_dim)),
    jnp.zeros((1, 1)),
  )['params']


@functools.cache
def abstract_params(config: BagelConfig):
  """The shapes of `init_params`; cached, since tracing takes a second."""
  return jax.eval_shape(
    functools.partial(init_params, config), jax.random.key(0)
  )


def parameter_names(config: BagelConfig) -> tuple[str, ...]:
  """The names of the parameters of a model, as of `core.trees.flatten`."""
  return tuple(flatten(nn.unbox(abstract_params(config))))


def _example_batch(config: BagelConfig) -> PackedBatch:
  """The smallest batch that touches every parameter."""
  geometry = config.image_geometry(
    vit_size=(config.vit.patch,) * 2, vae_size=(config.latent_stride,) * 2
  )
  shapes = abstract_batch(1, Capacity(und=1, gen=1, vit=1, images=1), geometry)
  return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
