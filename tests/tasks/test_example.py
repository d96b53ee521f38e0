import pytest

from synermedgen_jax.core.modalities import Modality
from synermedgen_jax.tasks.example import (
  Example,
  SliceRef,
  Span,
  text,
  vae_image,
  vit_image,
)

REF = SliceRef('case', Modality.CT, 3)


@pytest.mark.parametrize(
  ('span', 'mode'),
  [
    (text('words'), 'causal'),
    (text('words', has_loss=True), 'causal'),
    (vit_image(REF), 'full'),
    (vae_image(REF), 'full'),
    (vae_image(REF, has_loss=True), 'noise'),
  ],
)
def test_mode_follows_kind_and_loss(span, mode):
  assert span.mode == mode


@pytest.mark.parametrize(
  'fields',
  [
    {'kind': 'audio', 'text': 'words'},
    {'kind': 'text'},
    {'kind': 'text', 'text': 'words', 'image': REF},
    {'kind': 'vit_image'},
    {'kind': 'vae_image', 'text': 'words', 'image': REF},
    {'kind': 'vit_image', 'image': REF, 'has_loss': True},
    {'kind': 'vit_image', 'image': REF, 'is_label': True},
    {'kind': 'text', 'text': 'A', 'has_loss': True, 'is_label': True},
  ],
)
def test_a_span_that_makes_no_sense_is_refused(fields):
  with pytest.raises(ValueError, match=r'span|ViT|label'):
    Span(**fields)


def test_prompt_is_the_example_without_its_answer():
  question = (vit_image(REF), text('Which?'))
  example = Example('cts', (*question, text('B', has_loss=True)), 'B')
  assert example.prompt == Example('cts', question)
  assert example.prompt.prompt == example.prompt


def test_prompt_keeps_the_noised_target():
  spans = (vae_image(REF), text('convert'), vae_image(REF, has_loss=True))
  example = Example('synthesis', spans)
  assert example.prompt == example


@pytest.mark.parametrize('answer', ['', 'A', 'Which?'])
def test_an_answer_that_is_not_the_last_span_with_loss_is_refused(answer):
  spans = (text('Which?'), text('B', has_loss=True))
  with pytest.raises(ValueError, match="'cts'"):
    Example('cts', spans, answer)


def test_an_example_without_spans_is_refused():
  with pytest.raises(ValueError, match="'mi'"):
    Example('mi', ())
