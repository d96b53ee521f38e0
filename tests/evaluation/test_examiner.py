"""What the scores of adherence get from a run."""

import dataclasses

import numpy as np
import pytest

from synermedgen_jax.config.sampling import SamplingConfig
from synermedgen_jax.core.modalities import Modality, route_named
from synermedgen_jax.evaluation import examiner
from synermedgen_jax.evaluation.examiner import Examiner
from synermedgen_jax.evaluation.protocol import RouteCase
from synermedgen_jax.inference.workdir import Trained
from synermedgen_jax.tasks.prompts import LETTERS

SHOWN = (Modality.CT, Modality.MR, Modality.PET, None, Modality.T2, Modality.CT)


class Reads:
  """Answers MI as the value of each panel's pixels says; None has no label."""

  def __init__(self, model, params, tokenizer, geometry, read, *, batch_size):
    del model, params, tokenizer, geometry, batch_size
    self.read = read

  def answer(self, questions):
    return [self._answer(question) for question in questions]

  def _answer(self, question):
    images = [span.image for span in question.spans if span.image]
    answers = []
    for letter, image in zip(LETTERS, images, strict=True):
      modality = SHOWN[int(self.read(image)[0, 0])]
      answers.append(f'{letter} {modality.label if modality else "?"}')
    return ' '.join(answers)


@dataclasses.dataclass(frozen=True)
class Synthesiser:
  """Notes how it is called and returns its sources."""

  sampling: SamplingConfig
  calls: list

  def synthesise(self, route, sources, *, seed, instruction):
    self.calls.append((self.sampling.withheld, route, seed, instruction))
    return sources[0]


def examined(**sampling):
  trained = Trained(
    *(None,) * 4, {'stage': 'joint', 'prompts': 'short'}, slices=None
  )
  sampling = SamplingConfig(points=2, shift=1.0, **sampling)
  own = Synthesiser(sampling, [])
  return Examiner(trained, own, None, ['direction'], seed=3)


@pytest.mark.parametrize('count', [1, 3, 4, 6])
def test_every_slice_gets_the_answer_about_its_own_panel(monkeypatch, count):
  monkeypatch.setattr(examiner, 'Answerer', Reads)
  images = np.arange(count)[:, None, None] * np.ones((1, 2, 2))
  assert examined()._read(images) == [*SHOWN[:count]]


def test_slices_are_synthesised_again_with_one_thing_changed():
  route = route_named('brain_mr_to_ct')
  slices = np.zeros((1, 2, 4, 4), np.float32)
  item = RouteCase(route, None, np.arange(2), slices, slices[0], slices[0] == 0)
  given = examined(withheld=('vit',))
  given._again(item, instruction=route.reverse)
  given._again(item, withheld=('text',))
  assert given.synthesiser.calls == [
    (('vit',), route, 3, route.reverse),
    (('vit', 'text'), route, 3, None),
  ]
