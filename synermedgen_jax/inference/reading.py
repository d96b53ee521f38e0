"""Reads which modality a volume shows, by the model's own answers to MI.

reading = read_modality(trained, volume, Modality.MR)
reading.votes                  # {Modality.CT: 14, Modality.MR: 2}
reading.doubt(Modality.MR)     # Doubt.OTHER_FAMILY

Phantoms, which a model was trained on, are read better than the volumes of a
scanner that it never saw.
"""

from __future__ import annotations

import collections
import dataclasses
import enum
from collections.abc import Iterable, Mapping

import numpy as np
from jaxtyping import Float

from synermedgen_jax.core.modalities import Modality
from synermedgen_jax.inference.answering import Answerer
from synermedgen_jax.inference.asking import shows_body
from synermedgen_jax.inference.translation import cut
from synermedgen_jax.inference.workdir import Trained
from synermedgen_jax.slices.volumes import Volume
from synermedgen_jax.tasks import mi
from synermedgen_jax.tasks.example import SliceRef

_PANELS = 4  # per question
_AIR_HU = -200.0  # an MR or a PET has hardly a voxel below
_PERCENTILE = 1.0


class Doubt(enum.Enum):
  """What a reading says against the modality that a volume is meant to be."""

  NONE = ''
  OTHER_MODALITY = 'another modality of the family'
  OTHER_FAMILY = 'another family'


@dataclasses.dataclass(frozen=True)
class Reading:
  """The model's answers about slices of one volume.

  Attributes:
    votes: modality -> slices that were read as it, the most frequent first.
    slices: slices that were shown; some may have no legible answer.
  """

  votes: Mapping[Modality, int]
  slices: int

  def __str__(self) -> str:
    """For example 'CBCT in 14, CT in 2 of 16 slices'."""
    found = ', '.join(f'{m.label} in {n}' for m, n in self.votes.items())
    return f'{found or "nothing legible"} of {self.slices} slices'

  def doubt(self, claimed: Modality) -> Doubt:
    """Compares the reading with a claim.

    Another family needs most of the slices: a reading without a majority, or of
    illegible answers, doubts nothing. CT and CBCT look alike, so neither speaks
    against the other.

    Args:
      claimed: modality that the volume is meant to be.
    """
    families = collections.Counter()
    for modality, count in self.votes.items():
      families[family_of(modality)] += count
    for family, count in families.items():
      if family != family_of(claimed) and 2 * count > self.slices:
        return Doubt.OTHER_FAMILY
    if claimed.family == Modality.CT.family:
      return Doubt.NONE
    legible = sum(self.votes.values())
    if 2 * legible > self.slices and 2 * self.votes.get(claimed, 0) < legible:
      return Doubt.OTHER_MODALITY
    return Doubt.NONE


def family_of(modality: Modality) -> str:
  """The family of a modality; one without any is its own."""
  return modality.family or modality.value


def read_modality(
  trained: Trained,
  volume: Volume,
  claimed: Modality,
  *,
  slices: int = 16,
  seed: int = 0,
) -> Reading:
  """Asks the model what a volume shows.

  A volume with air in HU is read in the window of CT, whatever it is meant to
  be: a CT in the window of an MR looks like neither.

  Args:
    trained: a run that was trained on MI in Stage I.
    volume: in the unit of its modality.
    claimed: modality that the volume is meant to be, whose window it has.
    slices: number of slices to show, evenly spaced where the body is; some are
      shown twice if the body has fewer.
    seed: random seed of the order of panels and of the wordings.
  """
  air = np.percentile(volume.data, _PERCENTILE) < _AIR_HU
  window = Modality.CT if air else claimed
  _, images = cut(trained, {window: volume})
  return read_slices(trained, images[window], window, slices=slices, seed=seed)


def read_slices(
  trained: Trained,
  images: Float[np.ndarray, 'z h w'],
  modality: Modality,
  *,
  slices: int = 16,
  seed: int = 0,
) -> Reading:
  """As `read_modality`, of slices in [-1, 1].

  Args:
    trained: a run that was trained on MI in Stage I.
    images: the slices of a volume.
    modality: the one whose window the slices have; the model does not see it.
    slices, seed: as of `read_modality`.
  """
  shown = _with_body(images)
  places = np.linspace(0, len(shown) - 1, slices + 2)[1:-1].round().astype(int)
  refs = [SliceRef('', modality, int(shown[place])) for place in places]
  rng = np.random.default_rng(seed)
  questions = [
    mi.ask(refs[i : i + _PANELS], trained.prompts, rng)
    for i in range(0, slices, _PANELS)
  ]
  answerer = Answerer(
    trained.model,
    trained.params,
    trained.tokenizer,
    trained.geometry,
    lambda ref: images[ref.index],
    batch_size=len(questions),
  )
  return Reading(_votes(answerer.answer(questions)), slices)


def _with_body(images: Float[np.ndarray, 'z h w']) -> np.ndarray:
  """Indices of the slices that show the body; all, if none does."""
  shown = np.flatnonzero(shows_body(images))
  return shown if shown.size else np.arange(len(images))


def _votes(answers: Iterable[str]) -> dict[Modality, int]:
  by_label = {modality.label: modality for modality in Modality}
  counts = collections.Counter(
    by_label[label]
    for answer in answers
    for label in mi.parse_answer(answer, _PANELS)
    if label
  )
  return dict(counts.most_common())
