import functools

import flax.linen as nn
import jax
import pytest

from synermedgen_jax.models import bagel, presets


@functools.cache
def counts(name: str) -> dict[str, int]:
  """Parameters by part of the model, from shapes alone."""
  shapes = nn.unbox(bagel.abstract_params(presets.preset(name)))
  shapes |= {f'mot_{k}': v for k, v in shapes.pop('mot')['layers'].items()}
  return {
    part: sum(leaf.size for leaf in jax.tree.leaves(tree))
    for part, tree in shapes.items()
  }


def test_bagel_experts_have_the_parameters_of_qwen2_5_7b():
  layer = (
    3584 * 3584 + 3584  # query
    + 2 * (3584 * 512 + 512)  # key, value
    + 3584 * 3584  # output
    + 3 * 3584 * 18944  # MLP
    + 2 * 3584  # norms
    + 2 * 128  # query and key norm, which Qwen2.5 lacks
  )  # fmt: skip
  assert counts('bagel_7b')['mot_und'] == 28 * layer
  assert counts('bagel_7b')['mot_gen'] == 28 * layer
  embedding = counts('bagel_7b')['embed_tokens']
  assert embedding == counts('bagel_7b')['lm_head'] == 152064 * 3584
  # The published size of Qwen2.5-7B.
  final_norm, added_norms = 3584, 28 * 2 * 128
  qwen = 28 * layer - added_norms + final_norm + 2 * embedding
  assert qwen == 7_615_616_512


def test_bagels_other_parts_have_their_published_shapes():
  parts = counts('bagel_7b')
  # The FLUX autoencoder, with 16 shifts and 16 scales.
  assert parts['autoencoder'] == 83_819_683 + 32
  vit_layer = 4 * (1152**2 + 1152) + 2 * 1152 * 4304 + 4304 + 1152 + 4 * 1152
  vit = 26 * vit_layer + 588 * 1152 + 1152 + 4900 * 1152 + 2 * 1152
  assert parts['vit'] == vit
  assert parts['connector'] == 1152 * 3584 + 3584 + 3584**2 + 3584
  assert parts['vit_pos_embed'] == 70**2 * 3584
  assert parts['latent_pos_embed'] == 64**2 * 3584
  assert parts['vae2llm'] == 64 * 3584 + 3584
  assert parts['llm2vae'] == 3584 * 64 + 64
  assert parts['time_embedder'] == 256 * 3584 + 3584 + 3584**2 + 3584


def test_bagel_has_14_69_billion_parameters():
  total = sum(counts('bagel_7b').values()) + 2 * 3584  # the experts' last norms
  assert round(total / 1e9, 2) == 14.69


def test_tiny_is_tiny():
  assert 1e6 < sum(counts('tiny').values()) < 2.5e6


@pytest.mark.parametrize(
  ('name', 'vit_side', 'vae_side', 'stride'),
  [
    ('tiny', 64, 64, 8),
    ('base_1b', 980, 1024, 16),
    ('bagel_7b', 980, 1024, 16),
  ],
)
def test_tables_reach_the_largest_slice(name, vit_side, vae_side, stride):
  config = presets.preset(name)
  geometry = config.image_geometry(
    vit_size=(vit_side,) * 2, vae_size=(vae_side,) * 2
  )
  assert geometry.latent_stride == stride
  assert geometry.vit_patch == config.vit.patch
  with pytest.raises(ValueError, match='exceed the position table'):
    config.image_geometry(
      vit_size=(vit_side,) * 2, vae_size=(vae_side, vae_side + stride)
    )
  with pytest.raises(ValueError, match='exceed the position table'):
    config.image_geometry(
      vit_size=(vit_side + config.vit.patch, vit_side),
      vae_size=(vae_side, vae_side),
    )


def test_the_vits_own_table_covers_the_connectors():
  for name in presets.PRESETS:
    config = presets.preset(name)
    assert config.vit.table == config.vit_table


def test_an_unknown_preset_lists_the_known_ones():
  with pytest.raises(
    ValueError, match=r"'huge'.*tiny, small, desk, base_1b, bagel_7b"
  ):
    presets.preset('huge')
