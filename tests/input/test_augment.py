"""Images of training examples: mirrored together, noisy apart."""

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
  """Whether it is; it has to be one or the other."""
  if np.array_equal(image, read(ref)):
    return False
  np.testing.assert_array_equal(image, read(ref)[:, ::-1])
  return True


def test_nothing_changes_unless_asked():
  for example in (question(), synthesis()):
    for found, ref in zip(images(Augment(), example), REFS, strict=False):
      np.testing.assert_array_equal(found, read(ref))


@pytest.mark.parametrize('example', [question('tia'), synthesis()])
def test_all_images_of_an_example_are_mirrored_or_none(example):
  seen = []
  for seed in range(200):
    found = images(Augment(mirror=0.25), example, seed)
    ways = {mirrored(i, ref) for i, ref in zip(found, REFS, strict=False)}
    assert len(ways) == 1
    seen += ways
  assert 0.15 < np.mean(seen) < 0.35


def test_texts_from_files_may_speak_of_sides():
  found = images(Augment(mirror=1.0), question('vlm'))
  assert not any(map(mirrored, found, REFS))


def test_noise_is_of_its_strength_and_anew_in_every_image():
  found = images(Augment(noise=0.1), question())
  noise = np.stack([i - read(r) for i, r in zip(found, REFS, strict=True)])
  assert noise.dtype == np.float32
  assert 0.08 < noise.std() < 0.12
  assert abs(noise.mean()) < 0.02
  assert np.corrcoef(noise.reshape(3, -1))[0, 1:].max() < 0.3


def test_what_is_synthesised_and_its_conditions_get_no_noise():
  found = images(Augment(noise=0.5), synthesis())
  for image, ref in zip(found, REFS, strict=False):
    np.testing.assert_array_equal(image, read(ref))


def dot(ref):
  """One bright pixel in a dark slice, right of the middle and above it."""
  image = np.full((32, 32), -1, np.float32)
  image[12, 22] = 1
  return image


def warped(example, seed, read):
  reader = Augment(warp=1.0).reader(read, example, np.random.default_rng(seed))
  return [reader(span.image) for span in example.spans if span.image]


def place(image):
  """Centre of mass above the background: row, column."""
  weight = image.astype(np.float64) + 1
  rows, columns = np.indices(image.shape)
  return np.array([(weight * i).sum() for i in (rows, columns)]) / weight.sum()


def test_a_warp_is_the_same_for_all_images_of_an_example():
  for seed in range(5):
    source, target = warped(synthesis(), seed, dot)
    np.testing.assert_array_equal(source, target)


def test_a_warp_turns_scales_and_shifts_a_little():
  moved = np.stack(
    [place(warped(synthesis(), seed, dot)[0]) - (12, 22) for seed in range(200)]
  )
  # 2 pixels of shift; 7.4 from the middle, 1.1 by scale and 1.5 by turning.
  assert np.abs(moved).max() < 2 + 1.1 + 1.6
  assert (moved.std(0) > 0.8).all()
  assert (np.abs(moved.mean(0)) < 0.4).all()


def test_a_warp_keeps_the_range_and_what_is_even():
  for seed in range(20):
    (found, _) = warped(synthesis(), seed, dot)
    assert found.dtype == np.float32
    assert found.min() == -1
    assert found.max() <= 1
    even = warped(synthesis(), seed, lambda _: np.full((16, 16), 0.25, 'f4'))
    np.testing.assert_allclose(even, 0.25, atol=1e-6)


def test_questions_are_not_warped():
  for found, ref in zip(
    images(Augment(warp=1.0), question()), REFS, strict=True
  ):
    np.testing.assert_array_equal(found, read(ref))


def test_a_share_of_examples_is_warped():
  unchanged = [
    np.array_equal(
      images(Augment(warp=0.25), synthesis(), seed)[0], read(REFS[0])
    )
    for seed in range(200)
  ]
  assert 0.65 < np.mean(unchanged) < 0.85
