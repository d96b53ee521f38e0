"""A model for 8 x 8 slices that compiles in a second, and its questions."""

import functools

import flax.linen as nn
import jax
import numpy as np

from synermedgen_jax.core.modalities import ROUTES, Modality
from synermedgen_jax.input import packing
from synermedgen_jax.input.tokenizer import Tokenizer
from synermedgen_jax.models.autoencoder import AutoencoderConfig
from synermedgen_jax.models.bagel import Bagel, abstract_params
from synermedgen_jax.models.bagel_config import BagelConfig
from synermedgen_jax.models.compute import Compute
from synermedgen_jax.models.mot import MoTConfig
from synermedgen_jax.models.vit import ViTConfig
from synermedgen_jax.tasks import synthesis
from synermedgen_jax.tasks.example import Example, SliceRef, text, vit_image
from synermedgen_jax.tasks.prompts import SHORT

CONFIG = BagelConfig(
  llm=MoTConfig(
    hidden=8,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=4,
    mlp=12,
    vocab=128,
    rope_theta=100.0,
  ),
  vit=ViTConfig(
    hidden=8, layers=1, heads=2, mlp=12, patch=4, channels=1, table=2
  ),
  autoencoder=AutoencoderConfig(
    channels=1,
    ch=4,
    ch_mult=(1,),
    num_res_blocks=1,
    z_channels=2,
    space_to_depth=2,
    norm_groups=2,
  ),
  latent_table=3,
  vit_table=2,
)
COMPUTE = Compute(dtype='float32')
MODEL = Bagel(CONFIG, COMPUTE)
# Four ViT patches and four latent tokens a slice.
GEOMETRY = CONFIG.image_geometry(vit_size=(8, 8), vae_size=(8, 8))
ROUTE = ROUTES[0]


class Ascii(Tokenizer):
  """Letters are their ASCII codes, markers are 1 to 4."""

  def __init__(self):
    self.im_start, self.im_end = 1, 2
    self.vision_start, self.vision_end = 3, 4

  def encode(self, words: str) -> list[int]:
    return [ord(letter) for letter in words]

  def decode(self, ids) -> str:
    return ''.join(map(chr, ids))


@functools.cache
def params(config: BagelConfig = CONFIG):
  """Parameters none of which is zero, nor a norm's scale far from one."""
  shapes = nn.unbox(abstract_params(config))
  rng = np.random.default_rng(0)

  def leaf(path, shape):
    is_scale = 'scale' in path[-1].key
    return (rng.normal(0, 0.5, shape.shape) + is_scale).astype(np.float32)

  return jax.tree_util.tree_map_with_path(leaf, shapes)


def rigged(text_to_say: str, *, ends: bool = True):
  """A model whose next token is a matter of the last one alone.

  The layers add nothing, so a token's hidden state is its embedding.
  """
  tokenizer = Ascii()
  weights = jax.tree.map(lambda leaf: leaf, params())
  und = weights['mot']['layers']['und']
  for kernel in (und['o_proj'], und['mlp']['down_proj']):
    kernel['kernel'] = np.zeros_like(kernel['kernel'])
  weights['mot']['und_norm'] = {'scale': np.ones(8, np.float32)}
  says = [tokenizer.im_start, *tokenizer.encode(text_to_say)]
  following = [*says[1:], tokenizer.im_end if ends else says[1]]
  embedding = np.zeros((128, 8), np.float32)
  head = np.zeros((8, 128), np.float32)
  for i, (token, after) in enumerate(zip(says, following, strict=True)):
    embedding[token, i] = 1.0
    head[i, after] = 1.0
  weights['embed_tokens'] = {'embedding': embedding}
  weights['lm_head'] = {'kernel': head}
  return weights


def slices(count: int, side: int = 8, seed: int = 0) -> np.ndarray:
  rng = np.random.default_rng(seed)
  return rng.uniform(-1, 1, (count, side, side)).astype(np.float32)


def read_slice(ref: SliceRef) -> np.ndarray:
  return slices(1, seed=ref.index)[0]


def synthesis_prompt(words: str, index: int = 0) -> Example:
  """Source slice `index`, these words, the noised target."""
  example = synthesis.prompt(ROUTE, 'case', index, SHORT)
  spans = [text(words) if s.kind == 'text' else s for s in example.spans]
  return Example('synthesis', tuple(spans))


def question(words: str, images: int = 1) -> Example:
  """Some images and a question, to be answered by 'A'."""
  shown = [vit_image(SliceRef('case', Modality.CT, i)) for i in range(images)]
  return Example(
    'cts', (*shown, text(words), text('A', has_loss=True)), answer='A'
  )


def tokenise(example: Example, dropped=frozenset()):
  return packing.tokenise(
    example, Ascii(), GEOMETRY, read_slice, dropped=dropped
  )


def pack(*features):
  """Packs one example per row, in rows that fit the largest."""
  und, gen, vit, images = (
    max(len(f[name]) for f in features)
    for name in ('und', 'gen', 'vit', 'vae_images')
  )
  capacity = packing.Capacity(und, gen, vit, images)
  return packing.pack_rows(features, capacity, GEOMETRY)


@functools.partial(jax.jit, static_argnames='method')
def call(weights, *arguments, method):
  """A method of the model, compiled."""
  return MODEL.apply({'params': weights}, *arguments, method=method)
