import inference_fakes as fakes
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from synermedgen_jax.core.batch import Capacity
from synermedgen_jax.inference.answering import Answerer, decode
from synermedgen_jax.input import packing
from synermedgen_jax.tasks.example import Example, text

pytestmark = pytest.mark.usefixtures('quick_compiles')

TOKENIZER = fakes.Ascii()
QUESTIONS = [
  fakes.question('which one?'),
  fakes.question('ab', images=2),
  fakes.question('and this?', images=0),
]


def run(prompts, weights, max_tokens=6):
  batch = fakes.pack(*(fakes.tokenise(p.prompt) for p in prompts))
  ids = decode(
    fakes.MODEL,
    weights,
    batch,
    im_start=TOKENIZER.im_start,
    im_end=TOKENIZER.im_end,
    max_tokens=max_tokens,
  )
  return np.asarray(ids).tolist()


def answerer(weights, **settings) -> Answerer:
  return Answerer(
    fakes.MODEL,
    weights,
    TOKENIZER,
    fakes.GEOMETRY,
    fakes.read_slice,
    **settings,
  )


@jax.jit
def next_logits(weights, batch, place):
  """Logits after the token at `place` of a complete row, without a cache."""

  def forward(model):
    hidden, _ = model.backbone(model.embed_batch(batch))
    return model.logits(hidden['und'])[0, place]

  return fakes.MODEL.apply({'params': weights}, method=forward)


def greedy_uncached(example, weights, count):
  """Whole rows, each one token longer, as the packer lays them out."""
  ids = []
  for _ in range(count):
    answer = text(TOKENIZER.decode(ids) or 'x', has_loss=True)
    spans = (*example.prompt.spans, answer)
    features = fakes.tokenise(Example('cts', spans, answer.text))
    extra = 1 if ids else 2  # <|im_end|>, and the stand-in for no text
    features['und'] = features['und'][:-extra]
    batch = packing.pack_rows(
      [features], Capacity(und=32, gen=0, vit=8, images=0), fakes.GEOMETRY
    )
    place = len(features['und']) - 1
    ids.append(int(jnp.argmax(next_logits(weights, batch, place))))
  return ids


@pytest.mark.parametrize('question', QUESTIONS[:2])
def test_cached_decoding_equals_decoding_of_complete_rows(question):
  # Biased away from the markers, so that the answer goes on.
  weights = jax.tree.map(lambda leaf: leaf, fakes.params())
  head = weights['lm_head']['kernel'].copy()
  head[:, :5] = 0.0
  weights['lm_head'] = {'kernel': head}
  expected = greedy_uncached(question, weights, 4)
  assert run([question], weights, max_tokens=4) == [expected]
  assert len(set(expected)) > 1


def test_prompts_of_any_lengths_share_a_batch():
  together = run(QUESTIONS, fakes.params())
  alone = [run([q], fakes.params())[0] for q in QUESTIONS]
  assert together == alone
  assert len({tuple(ids) for ids in together}) > 1


def test_questions_of_one_capacity_share_a_program_with_equal_answers():
  asked = answerer(fakes.params(), max_tokens=7)  # as no other test has it
  capacity = asked.capacity_for(QUESTIONS)
  before = decode._cache_size()
  answers = [asked.answer([q], capacity=capacity)[0] for q in QUESTIONS]
  assert decode._cache_size() == before + 1
  assert answers == [asked.answer([q])[0] for q in QUESTIONS]
  assert len(set(answers)) > 1


def test_a_rigged_model_answers_the_rigged_text():
  answers = answerer(fakes.rigged('CT B')).answer(QUESTIONS)
  assert answers == ['CT B'] * 3


def test_an_answer_stops_at_im_end_and_is_filled_up_with_it():
  assert run(QUESTIONS[:1], fakes.rigged('CT')) == [[67, 84, 2, 2, 2, 2]]


def test_an_endless_answer_is_cut_off():
  weights = fakes.rigged('CT', ends=False)
  assert run(QUESTIONS[:1], weights, max_tokens=5) == [[67, 84, 67, 84, 67]]
  answers = answerer(weights, max_tokens=5).answer(QUESTIONS)
  assert answers == ['CTCTC'] * 3


def test_rows_end_one_by_one():
  both = run(QUESTIONS, fakes.params(), max_tokens=8)
  for ids in both:
    if 2 in ids:
      assert set(ids[ids.index(2) :]) == {2}


@pytest.mark.parametrize('batch_size', [1, 2, 8])
def test_the_batch_size_changes_no_answer(batch_size):
  done = []
  asked = answerer(fakes.params(), batch_size=batch_size, max_tokens=6)
  answers = asked.answer(QUESTIONS, progress=done.append)
  expected = run(QUESTIONS, fakes.params())
  expected = [ids[: ids.index(2)] if 2 in ids else ids for ids in expected]
  assert answers == [TOKENIZER.decode(ids) for ids in expected]
  assert sum(done) == 3
  assert max(done) <= batch_size


def test_the_known_answer_is_not_looked_at():
  plain = QUESTIONS[0]
  other = Example(
    'cts', (*plain.prompt.spans, text('BCD', has_loss=True)), answer='BCD'
  )
  model = answerer(fakes.params(), max_tokens=6)
  assert model.answer([plain]) == model.answer([other])


def test_no_question_gives_no_answer():
  assert answerer(fakes.params()).answer([]) == []


def test_a_noised_image_cannot_be_asked_about():
  with pytest.raises(ValueError, match='noised image has no answer'):
    answerer(fakes.params()).answer([fakes.synthesis_prompt('ab')])
