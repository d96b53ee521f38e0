"""Augmentation: images of an example share mirroring but not noise."""

import numpy as np
import pytest

from synermedgen_jax.core.modalities import Modality
from synermedgen_jax.input.augment import Augment
from synermedgen_jax.tasks.example import (
  Example,
  SliceRef,
  text,
  vae_image,
  vit_image,
)

REFS = [SliceRef('case', Modality.CT, i) for i in range(3)]


def read(ref):
  """Every column of its own, and every slice."""
  return np.tile(np.linspace(-1, 1, 16, dtype=np.float32), (16, 1)) + ref.index


def question(task='cts'):
  return Example(task, (*map(vit_image, REFS), text('A', has_loss=True)), 'A')


def synthesis():
  return Example('synthesis', (vit_image(REFS[0]), vae_image(REFS[1], True)))


def images(augment, example, seed=0):
  reader = augment.reader(read, example, np.random.default_rng(seed))
  return [reader(span.image) for span in example.spans if span.image]


def mirrored(image, ref):
  """Whether the image is mirrored; fails if it is changed in another way."""
  if np.array_equal(image, read(ref)):
    return False
  np.testing.assert_array_equal(image, read(ref)[:, ::-1])
  return True


def test_nothing_changes_unless_asked():
  for example in (question(), synthesis()):
    for image, ref in zip(images(Augment(), example), REFS, strict=False):
      np.testing.assert_array_equal(image, read(ref))


@pytest.mark.parametrize('example', [question('tia'), synthesis()])
def test_all_images_of_an_example_are_mirrored_or_none(example):
  seen = []
  for seed in range(200):
    augmented = images(Augment(mirror=0.25), example, seed)
    ways = {mirrored(i, ref) for i, ref in zip(augmented, REFS, strict=False)}
    assert len(ways) == 1
    seen += ways
  assert 0.15 < np.mean(seen) < 0.35


def test_texts_from_files_may_speak_of_sides():
  augmented = images(Augment(mirror=1.0), question('vlm'))
  assert not any(map(mirrored, augmented, REFS))


def test_noise_has_its_strength_and_differs_between_images():
  augmented = images(Augment(noise=0.1), question())
  noise = np.stack([i - read(r) for i, r in zip(augmented, REFS, strict=True)])
  assert noise.dtype == np.float32
  assert 0.08 < noise.std() < 0.12
  assert abs(noise.mean()) < 0.02
  assert np.corrcoef(noise.reshape(3, -1))[0, 1:].max() < 0.3


def test_synthesis_targets_and_conditions_get_no_noise():
  augmented = images(Augment(noise=0.5), synthesis())
  for image, ref in zip(augmented, REFS, strict=False):
    np.testing.assert_array_equal(image, read(ref))


DOTS = ((32, 32), (32, 48), (16, 32))  # the middle, right of it, above it


def dot(ref):
  """A dark slice with one bright spot, whose position depends on the index."""
  away = np.indices((65, 65)) - np.reshape(DOTS[ref.index], (2, 1, 1))
  return (2 * np.exp(-(away**2).sum(0) / 8) - 1).astype(np.float32)


def warped(example, seed, read):
  reader = Augment(warp=1.0).reader(read, example, np.random.default_rng(seed))
  return [reader(span.image) for span in example.spans if span.image]


def place(image):
  """Centre of mass above the background: row, column."""
  weight = image.astype(np.float64) + 1
  rows, columns = np.indices(image.shape)
  return np.array([(weight * i).sum() for i in (rows, columns)]) / weight.sum()


def three_dots(seed):
  """Positions of the dots of one warped example."""
  spans = [vae_image(ref, has_loss=True) for ref in REFS]
  return np.stack(
    [place(i) for i in warped(Example('synthesis', tuple(spans)), seed, dot)]
  )


def test_a_warp_is_the_same_for_all_images_of_an_example():
  for seed in range(5):
    source, target = warped(synthesis(), seed, lambda _: dot(REFS[1]))
    np.testing.assert_array_equal(source, target)


def test_a_warp_rotates_scales_and_shifts_within_its_limits():
  middle, right, above = np.moveaxis(
    np.stack([three_dots(seed) for seed in range(200)]), 1, 0
  )
  shifts = middle - 32
  angles, scales = [], []
  for arm, at in ((right, (0, 16)), (above, (-16, 0))):
    to = arm - middle
    cross = at[0] * to[:, 1] - at[1] * to[:, 0]
    angles.append(np.degrees(np.arctan2(cross, to @ at)))
    scales.append(np.log(np.hypot(*to.T) / 16))
  # Both arms agree: it is a rotation and one scale, and no shear.
  np.testing.assert_allclose(*angles, atol=0.1)
  np.testing.assert_allclose(*scales, atol=0.005)
  for values, most in ((angles[0], 12), (scales[0], 0.15), (shifts, 65 / 16)):
    assert np.abs(values).max() < 1.01 * most
    assert values.max() > 0.85 * most
    assert values.min() < -0.85 * most


def test_every_channel_of_a_picture_is_warped_alike():
  def read(ref):
    return np.stack([dot(REFS[1]), dot(REFS[1]) / 2], axis=-1)

  (colour, _), (grey, _) = (
    warped(synthesis(), 3, r) for r in (read, lambda _: dot(REFS[1]))
  )
  assert colour.shape == (65, 65, 2)
  np.testing.assert_array_equal(colour[..., 0], grey)
  np.testing.assert_allclose(colour[..., 1], grey / 2, atol=1e-6)


def test_a_warp_keeps_the_range_and_what_is_even():
  for seed in range(20):
    image, _ = warped(synthesis(), seed, dot)
    assert image.dtype == np.float32
    assert image.min() >= -1
    assert image.max() <= 1
    even = warped(synthesis(), seed, lambda _: np.full((16, 16), 0.25, 'f4'))
    np.testing.assert_allclose(even, 0.25, atol=1e-6)


def test_questions_are_not_warped():
  for image, ref in zip(
    images(Augment(warp=1.0), question()), REFS, strict=True
  ):
    np.testing.assert_array_equal(image, read(ref))


def test_a_share_of_examples_is_warped():
  unchanged = [
    np.array_equal(
      images(Augment(warp=0.25), synthesis(), seed)[0], read(REFS[0])
    )
    for seed in range(200)
  ]
  assert 0.65 < np.mean(unchanged) < 0.85
