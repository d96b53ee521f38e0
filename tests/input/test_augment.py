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
