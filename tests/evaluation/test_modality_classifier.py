"""The classifier of modalities learns from training slices alone."""

import dataclasses

import numpy as np
import pytest

from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.modalities import Modality
from synermedgen_jax.evaluation import modality_classifier
from synermedgen_jax.evaluation.modality_classifier import ModalityClassifier

MODALITIES = (Modality.CT, Modality.CBCT, Modality.MR)


def picture(modality, rng):
  """Stripes in the direction of the modality, or a checkerboard."""
  row, column = np.indices((24, 24)) // 4 + rng.integers(2)
  pattern = {Modality.CT: row, Modality.MR: column, Modality.CBCT: row + column}
  stripes = (pattern[modality] % 2) * 1.6 - 0.8
  return (stripes + 0.1 * rng.standard_normal((24, 24))).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Case:
  """As much of a case as the classifier needs."""

  id: str
  split: str
  modalities: tuple[Modality, ...] = MODALITIES
  usable: range = range(8)


class Store:
  """Two training subjects; reading another one fails the test."""

  path = 'store'

  def __init__(self, splits=('train', 'train', 'test')):
    self._cases = [Case(str(i), split) for i, split in enumerate(splits)]

  def split(self, name):
    return tuple(case for case in self._cases if case.split == name)

  def read_slices(self, wanted):
    rng = np.random.default_rng(0)
    trained = {case.id for case in self.split('train')}
    assert {case for case, _, _ in wanted} == trained
    return [picture(modality, rng) for _, modality, _ in wanted]


@pytest.fixture(scope='module')
def classifier():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(modality_classifier, '_STEPS', 60)
    patch.setattr(modality_classifier, '_SLICES', 40)
    return ModalityClassifier.train(Store())


def test_new_slices_are_classified(classifier):
  rng = np.random.default_rng(1)
  shown = [m for m in MODALITIES for _ in range(5)]
  images = np.stack([picture(m, rng) for m in shown])
  assert classifier.classify(images) == shown


def test_a_slice_alone_is_classified_as_among_others(classifier):
  rng = np.random.default_rng(2)
  images = np.stack([picture(m, rng) for m in MODALITIES])
  alone = [classifier.classify(image[None])[0] for image in images]
  assert alone == classifier.classify(images)


def test_a_store_without_training_subjects_is_refused():
  with pytest.raises(UserError, match='has no training subject'):
    ModalityClassifier.train(Store(('test', 'holdout')))
