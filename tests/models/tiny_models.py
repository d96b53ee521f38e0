"""Models small enough to compile in a second, and tokens for them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import span_packs

from synermedgen_jax.models.autoencoder import AutoencoderConfig
from synermedgen_jax.models.bagel_config import BagelConfig
from synermedgen_jax.models.compute import Compute
from synermedgen_jax.models.mot import MoT, MoTConfig, Tokens
from synermedgen_jax.models.vit import ViTConfig

MOT = MoTConfig(
  hidden=8,
  layers=2,
  heads=4,
  kv_heads=2,
  head_dim=4,
  mlp=12,
  vocab=16,
  rope_theta=100.0,
)
VIT = ViTConfig(
  hidden=8, layers=2, heads=2, mlp=12, patch=2, channels=1, table=3
)
AUTOENCODER = AutoencoderConfig(
  channels=1,
  ch=4,
  ch_mult=(1, 2),
  num_res_blocks=1,
  z_channels=3,
  norm_groups=2,
)
BAGEL = BagelConfig(
  llm=MOT,
  vit=VIT,
  autoencoder=AUTOENCODER,
  latent_table=3,
  vit_table=3,
)
COMPUTE = Compute(dtype='float32')


def fill(shapes, seed: int = 0):
  """Bare parameters of these shapes, none of them zero or one."""
  rng = np.random.default_rng(seed)

  def leaf(path, shape):
    value = rng.normal(0, 0.5, shape.shape)
    is_scale = path[-1].key == 'scale'
    return jnp.asarray(value + is_scale, shape.dtype)

  return jax.tree_util.tree_map_with_path(leaf, nn.unbox(shapes))


# A row: text, a clean image, a noised image; then a second example. Images'
# markers are causal text here: only the experts' streams matter.
PACK = [
  [('causal', 3), ('full', 2), ('causal', 2), ('noise', 3)],
  [('causal', 2), ('noise', 2)],
]
IS_GEN = np.repeat([False, True, False, True, False, True], [3, 2, 2, 3, 2, 2])


def streams(seed: int = 0) -> dict[str, Tokens]:
  """The tokens of `PACK` by expert, one row."""
  order = span_packs.order_of(PACK)
  visible_from, visible_to = span_packs.intervals(PACK)
  rng = np.random.default_rng(seed)
  x = rng.standard_normal((len(order), MOT.hidden)).astype(np.float32)
  positions = np.asarray([0, 1, 2, 3, 3, 4, 5, 6, 6, 6, 0, 1, 2, 2])
  whole = (x, positions, order, visible_from, visible_to)

  def stream(wanted):
    return Tokens(*(jnp.asarray(a[wanted])[None] for a in whole))

  return {'und': stream(~IS_GEN), 'gen': stream(IS_GEN)}


def mot_params(config: MoTConfig = MOT):
  model = MoT(config, COMPUTE)
  shapes = jax.eval_shape(model.init, jax.random.key(0), streams())
  return fill(shapes['params'])
