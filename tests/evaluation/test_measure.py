"""What a picture of a question says beside its images."""

import pytest

from synermedgen_jax.core.modalities import Modality
from synermedgen_jax.evaluation.measure import _picture
from synermedgen_jax.tasks.example import (
  Example,
  SliceRef,
  label,
  text,
  vit_image,
)

REFS = [SliceRef('case0', Modality.CT, index) for index in range(2)]
FIRST, SECOND = map(vit_image, REFS)


@pytest.mark.parametrize(
  ('spans', 'question', 'labels'),
  [
    (
      (FIRST, label('left'), SECOND, label('right'), text('Which?')),
      'Which?',
      ['left', 'right'],
    ),
    (
      (FIRST, text('A'), text('turned'), label('I'), SECOND),
      'A\nturned I',
      ['', ''],
    ),
    ((text('A'), FIRST, text('B'), SECOND), 'A\nB', ['', '']),
    (
      (label('A'), FIRST, label('one'), label('two'), SECOND),
      'A two',
      ['one', ''],
    ),
  ],
)
def test_labels_are_those_of_the_task(spans, question, labels):
  picture, images = _picture(Example('own', spans))
  assert picture == {'question': question, 'letters': labels}
  assert images == REFS
