import functools

import jax
import numpy as np
from tiny_models import COMPUTE, VIT, fill

from synermedgen_jax.models.vit import ViT

MODEL = ViT(VIT, COMPUTE)
RNG = np.random.default_rng(0)
# Three images of two, four and three patches: (pixels, positions).
IMAGES = [
  (
    RNG.standard_normal((count, VIT.patch**2)).astype(np.float32),
    RNG.choice(VIT.table**2, count, replace=False),
  )
  for count in (2, 4, 3)
]


def buffer(indices, size: int = 10):
  """The arguments of the ViT for these images, one after another."""
  patches = np.zeros((1, size, VIT.patch**2), np.float32)
  positions, visible_from, visible_to = np.zeros((3, 1, size), np.int32)
  start = 0
  for i in indices:
    pixels, places = IMAGES[i]
    stop = start + len(pixels)
    patches[0, start:stop] = pixels
    positions[0, start:stop] = places
    visible_from[0, start:stop] = start
    visible_to[0, start:stop] = stop
    start = stop
  return patches, positions, visible_from, visible_to


@functools.cache
def params():
  shapes = jax.eval_shape(MODEL.init, jax.random.key(0), *buffer([0]))
  return fill(shapes['params'])


@jax.jit
def features(weights, *arguments):
  return MODEL.apply({'params': weights}, *arguments)[0]


def test_features_do_not_depend_on_neighbours_nor_on_the_place():
  together = features(params(), *buffer([0, 1, 2]))
  assert together.shape == (10, VIT.hidden)
  for index, place in ((0, slice(0, 2)), (1, slice(2, 6)), (2, slice(6, 9))):
    alone = features(params(), *buffer([index]))
    count = place.stop - place.start
    np.testing.assert_allclose(together[place], alone[:count], atol=1e-5)


def test_images_of_one_size_go_one_by_one_with_the_same_features():
  """Three rows of three places for images of four patches, and two more."""
  rng = np.random.default_rng(1)
  rows, count, places = 3, 4, 14
  patches = rng.standard_normal((rows, places, VIT.patch**2)).astype(np.float32)
  positions = rng.integers(0, VIT.table**2, (rows, places)).astype(np.int32)
  starts = np.arange(places) // count * count
  real = np.arange(places) < np.array([[12], [4], [0]])
  visible_from = np.where(real, starts, 0).astype(np.int32)
  visible_to = np.where(real, starts + count, 0).astype(np.int32)
  arguments = patches, positions, visible_from, visible_to
  call = jax.jit(
    lambda weights, size: MODEL.apply({'params': weights}, *arguments, size),
    static_argnums=1,
  )
  masked, one_by_one = call(params(), 0), call(params(), count)
  assert one_by_one.shape == masked.shape == (rows, places, VIT.hidden)
  np.testing.assert_allclose(one_by_one[real], masked[real], atol=1e-5)
  assert np.isfinite(one_by_one).all()
  # Four scores per patch, and not fourteen.
  scores = str(jax.make_jaxpr(call, static_argnums=1)(params(), count))
  assert f'{places},{places}]' not in scores


def test_padding_is_finite():
  assert np.isfinite(features(params(), *buffer([]))).all()


def test_all_patches_of_an_image_see_each_other():
  plain = features(params(), *buffer([1]))
  patches, *rest = buffer([1])
  patches[0, 3] += 1.0
  change = np.abs(features(params(), patches, *rest) - plain)
  assert change[:4].max(-1).min() > 1e-4
  np.testing.assert_array_equal(change[4:], 0)


def test_positions_distinguish_equal_patches():
  patches, positions, *intervals = buffer([1])
  patches[0, :4] = patches[0, 0]
  out = features(params(), patches, positions, *intervals)
  assert np.abs(out[0] - out[1]).max() > 1e-3
  same = features(params(), patches, positions * 0, *intervals)
  np.testing.assert_allclose(same[0], same[1], atol=1e-5)
