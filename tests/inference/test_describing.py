"""A text about the source, written before synthesis and read in it."""

import dataclasses

import inference_fakes as fakes
import numpy as np
import pytest

from synermedgen_jax.config.sampling import Guidance, SamplingConfig
from synermedgen_jax.core.batch import Capacity
from synermedgen_jax.inference import describing, volume
from synermedgen_jax.inference.answering import Answerer
from synermedgen_jax.inference.volume import Synthesiser
from synermedgen_jax.tasks.prompts import SHORT

pytestmark = pytest.mark.usefixtures('quick_compiles')

PROMPT = fakes.synthesis_prompt('mr to ct')
GUIDED = SamplingConfig(2, 1.0, Guidance(text=2.0, image=2.0))


def synthesiser(weights, tokens=0, prompts=SHORT, **options):
  return Synthesiser(
    fakes.MODEL,
    weights,
    fakes.Ascii(),
    fakes.GEOMETRY,
    dataclasses.replace(GUIDED, describe_tokens=tokens),
    prompts,
    **options,
  )


def told(words):
  """Prompts whose descriptions already end with these words."""
  texts = tuple(f'{text}\n\n{words}' for text in SHORT.descriptions)
  return dataclasses.replace(SHORT, descriptions=texts)


def test_the_question_is_the_vit_image_and_the_instruction():
  question = describing.question(PROMPT)
  assert [span.kind for span in question.spans] == ['vit_image', 'text']
  assert question.spans[1].text == 'mr to ct'


def test_the_text_follows_the_instruction_in_its_span():
  example = describing.described(PROMPT, 'dark bone')
  texts = [span.text for span in example.spans if span.kind == 'text']
  assert texts == ['mr to ct\n\ndark bone']
  assert [s for s in example.spans if s.kind != 'text'] == [
    s for s in PROMPT.spans if s.kind != 'text'
  ]


@pytest.mark.parametrize('nothing', ['', ' \n'])
def test_no_words_change_nothing(nothing):
  assert describing.described(PROMPT, nothing) == PROMPT


@pytest.mark.parametrize(
  ('added', 'room'), [(0, 0), (1, 64), (64, 64), (65, 128), (800, 1024)]
)
def test_the_room_for_a_text_doubles(added, room):
  # Of an instruction of 10 letters; '\n\n' takes two tokens.
  plain = fakes.synthesis_prompt('i' * 10)
  capacity = Capacity(und=40, gen=8, vit=4, images=2)
  tight = describing.prompt_capacity(
    [plain], fakes.Ascii(), fakes.GEOMETRY, 'full'
  )
  longer = fakes.synthesis_prompt('i' * (10 + added))
  rows = describing.widened(
    {'full': tight, 'no_text': capacity},
    [plain, longer],
    fakes.Ascii(),
    fakes.GEOMETRY,
  )
  assert rows['full'].und == tight.und + room
  assert rows['no_text'] == capacity  # has no text


def test_the_room_for_a_text_is_beside_the_conditions_that_are_left():
  longer = fakes.synthesis_prompt('mr to ct' + 10 * 'x')
  tight, fitting = (
    describing.prompt_capacity(
      [prompt], fakes.Ascii(), fakes.GEOMETRY, 'full', ('vit',)
    )
    for prompt in (PROMPT, longer)
  )
  rows = describing.widened(
    {'full': fitting}, [longer], fakes.Ascii(), fakes.GEOMETRY, ('vit',)
  )
  assert rows == {'full': fitting}
  assert fitting.und == tight.und + 10


@pytest.mark.parametrize(
  ('withheld', 'asked'),
  [
    ((), [['vit_image', 'text']]),
    (('vit',), [['text']]),
    (('vae',), [['vit_image', 'text']]),
    (('text',), []),  # nor is a text written that is not read
  ],
)
def test_the_text_is_about_what_is_not_withheld(monkeypatch, withheld, asked):
  seen = []

  def answer(self, examples, *, capacity):
    seen.extend([span.kind for span in e.spans] for e in examples)
    return ['DARK'] * len(examples)

  def sample(model, params, prompts, seed, indices, grid, config):
    return np.zeros((*indices.shape, 8, 8), np.float32)

  monkeypatch.setattr(Answerer, 'answer', answer)
  monkeypatch.setattr(volume, '_sample_pictures', sample)
  model = synthesiser(fakes.params(), 6)
  sampling = dataclasses.replace(model.sampling, withheld=withheld)
  model = dataclasses.replace(model, sampling=sampling)
  model.synthesise(fakes.ROUTE, fakes.slices(1)[None])
  assert seen == asked


def test_the_model_reads_what_it_wrote():
  """As a model that was told these words."""
  weights = fakes.rigged('DARK')
  source = fakes.slices(3)
  ours = synthesiser(weights, 6).synthesise(fakes.ROUTE, source[None], seed=1)
  same = synthesiser(weights, prompts=told('DARK'))
  np.testing.assert_allclose(
    ours, same.synthesise(fakes.ROUTE, source[None], seed=1), atol=1e-4
  )
  without = synthesiser(weights).synthesise(fakes.ROUTE, source[None], seed=1)
  assert np.abs(ours - without).max() > 1e-3


def test_the_text_ends_at_its_limit():
  weights = fakes.rigged('AB', ends=False)
  source = fakes.slices(1)
  ours = synthesiser(weights, 3).synthesise(fakes.ROUTE, source[None])
  same = synthesiser(weights, prompts=told('ABA'))
  np.testing.assert_allclose(
    ours, same.synthesise(fakes.ROUTE, source[None]), atol=1e-4
  )


def test_each_slice_has_its_own_text_in_any_batch():
  weights = fakes.params()
  source = fakes.slices(4)
  expected = synthesiser(weights, 5, batch_size=4).synthesise(
    fakes.ROUTE, source[None]
  )
  alone = synthesiser(weights, 5, batch_size=1).synthesise(
    fakes.ROUTE, source[None]
  )
  np.testing.assert_allclose(alone, expected, atol=1e-3)


def test_texts_of_similar_lengths_share_a_program(monkeypatch):
  lengths = iter([3, 40, 5, 200])

  def answer(self, examples, *, capacity):
    return ['x' * next(lengths)] * len(examples)

  monkeypatch.setattr(Answerer, 'answer', answer)
  model = synthesiser(fakes.params(), 7)
  sizes = []
  for _ in range(4):
    model.synthesise(fakes.ROUTE, fakes.slices(1)[None])
    sizes.append(volume._sample_pictures._cache_size())
  assert sizes[1] - sizes[0] in (0, 1)  # 3 may fit without more room
  assert sizes[2] == sizes[1]
  assert sizes[3] == sizes[2] + 1
