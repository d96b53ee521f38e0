"""Questions with a reference and four options, line by line."""

import json

import numpy as np
import pytest

from synermedgen_jax.interop.choice_jsonl import read_choices
from synermedgen_jax.interop.image_files import FormatError, encode_png

PATHS = ['t1/r.png', *(f't1ce/{letter}.png' for letter in 'abcd')]


@pytest.fixture(autouse=True)
def pictures(tmp_path):
  for path in PATHS:
    (tmp_path / path).parent.mkdir(exist_ok=True)
    (tmp_path / path).write_bytes(encode_png(np.zeros((4, 4), np.float32)))


def row(question='<image> Which?', answer='D', **values):
  turns = [
    {'from': 'human', 'value': question},
    {'from': 'gpt', 'value': answer},
  ]
  return {'image': PATHS, 'conversations': turns, **values}


def write(tmp_path, *rows):
  path = tmp_path / 'questions.jsonl'
  lines = [r if isinstance(r, str) else json.dumps(r) for r in rows]
  path.write_text('\n'.join(lines) + '\n')
  return path


def spans(choice):
  """Names of the images, and the texts, in order."""
  return [
    span.text or span.image.path.stem for span in choice.example.prompt.spans
  ]


@pytest.mark.parametrize(
  ('question', 'expected'),
  [
    ('<image> Which?', [*'rabcd', 'Which?']),
    ('Which?', [*'rabcd', 'Which?']),
    ('Which <image>?', ['Which', *'rabcd', '?']),
    (
      '<image> ref <image>A<image>B<image>C<image>D',
      ['r', 'ref', *'aAbBcCdD'],
    ),
  ],
)
def test_images_stand_at_the_placeholders(tmp_path, question, expected):
  (choice,) = read_choices(write(tmp_path, row(question)))
  assert spans(choice) == expected


def test_the_optional_fields_are_read(tmp_path):
  pair = {'src': 't1', 'tgt': 't1ce'}
  first, second = read_choices(
    write(tmp_path, row(id=7, pair=pair, case_id='c', slice_idx=3), '', row())
  )
  assert first.letter == second.letter == 'D'
  assert first.pair == 't1->t1ce'
  assert second.pair == ''
  assert first.about == {'line': 1, 'id': 7, 'case_id': 'c', 'slice_idx': 3}
  assert second.about == {'line': 3}


@pytest.mark.parametrize('answer', ['B', 'b', ' B. ', 'Option B', '(B)'])
def test_a_right_answer_names_one_letter(tmp_path, answer):
  (choice,) = read_choices(write(tmp_path, row(answer=answer)))
  assert choice.letter == 'B'


def test_paths_may_be_relative_to_another_folder(tmp_path):
  folder = tmp_path / 'elsewhere'
  folder.mkdir()
  path = write(folder, row())
  (choice,) = read_choices(path, tmp_path)
  assert spans(choice)[:5] == list('rabcd')
  with pytest.raises(FormatError, match=r'line 1: no such picture .*/r\.png'):
    read_choices(path)


BAD = {
  'no JSON': ('{', 'is not JSON'),
  'a list': ('[1]', 'is not a JSON object'),
  'four images': ({**row(), 'image': PATHS[:4]}, 'image has 4, expected 5'),
  'six images': ({**row(), 'image': [*PATHS, 'a']}, 'image has 6, expected 5'),
  'one path': ({**row(), 'image': 'a.png'}, 'image has no list, expected 5'),
  'no images': (
    {'conversations': row()['conversations']},
    'image has no list, expected 5',
  ),
  'a missing picture': (
    {**row(), 'image': [*PATHS[:4], 't1ce/e.png']},
    'no such picture',
  ),
  'an unknown letter': (row(answer='E'), "answer 'E' is not one letter of A,"),
  'two letters': (row(answer='A or B'), "'A or B' is not one letter"),
  'two placeholders': (
    row('<image> and <image>'),
    '2 <image> placeholder(s) for 5',
  ),
  'an unknown field': (row(extra=1, more=2), 'unknown field extra, more; '),
  'a pair of one': (row(pair={'src': 't1'}), 'pair is not an object of src'),
  'a pair in words': (row(pair='t1->t2'), 'pair is not an object of src'),
  'no answer': (
    {**row(), 'conversations': row()['conversations'][:1]},
    'conversations is not a question from human and an answer from gpt',
  ),
  'no conversation': (
    {**row(), 'conversations': 3},
    'conversations is not a question from human and an answer from gpt',
  ),
}


@pytest.mark.parametrize('kind', BAD)
def test_a_bad_line_is_named_by_its_number(tmp_path, kind):
  bad, reason = BAD[kind]
  path = write(tmp_path, row(), '', bad)
  with pytest.raises(FormatError) as error:
    read_choices(path)
  message = str(error.value)
  assert message.startswith(f'{path}: line 3: ')
  assert reason in message
  assert '\n' not in message


def test_a_file_without_a_question_is_refused(tmp_path):
  with pytest.raises(FormatError, match='holds no question'):
    read_choices(write(tmp_path, ''))
  with pytest.raises(FormatError, match=r'none\.jsonl: No such file'):
    read_choices(tmp_path / 'none.jsonl')
