"""Conversations about images, with hand-written spans."""

import json
import tempfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synermedgen_jax.core.modalities import Modality
from synermedgen_jax.input import pipeline
from synermedgen_jax.interop.image_files import FormatError, PictureFile
from synermedgen_jax.interop.vlm_jsonl import VlmLines, write_vlm
from synermedgen_jax.slices.store import SliceStore
from synermedgen_jax.tasks.example import (
  Example,
  SliceRef,
  text,
  vae_image,
  vit_image,
)
from synermedgen_jax.tasks.pairs import Pool
from synermedgen_jax.tasks.registry import TASKS


def human(value):
  return {'from': 'human', 'value': value}


def gpt(value):
  return {'from': 'gpt', 'value': value}


def line(image, *turns):
  row = {'id': 'x', 'image': image, 'conversations': turns}
  if image is None:
    del row['image']
  return json.dumps(row)


def write(path, *lines):
  path.write_text('\n'.join(lines))
  return path


def read(tmp_path, *lines):
  """The spans of every line."""
  source = VlmLines([write(tmp_path / 'talk.jsonl', *lines)])
  assert all(source[i].task == 'vlm' for i in range(len(source)))
  return [list(source[i].spans) for i in range(len(source))]


def picture(tmp_path, name, number=1):
  where = f'{tmp_path}/talk.jsonl: line {number}'
  return vit_image(PictureFile(tmp_path / name, where))


def test_pictures_stand_where_the_placeholders_were(tmp_path):
  value = '<image>\nfirst\n<image> second \n\nWhich is older?'
  (spans,) = read(
    tmp_path, line(['p/a.png', 'b.jpg'], human(value), gpt(' the first '))
  )
  assert spans == [
    picture(tmp_path, 'p/a.png'),
    text('first'),
    picture(tmp_path, 'b.jpg'),
    text('second \n\nWhich is older?'),
    text(' the first ', has_loss=True),
  ]


def test_every_answer_has_a_loss(tmp_path):
  path = write(
    tmp_path / 'talk.jsonl',
    line(
      'a.png',
      human('Which? <image>'),
      gpt('CT'),
      human(' Sure? '),
      human('<image'),
      gpt('yes, no <image> is missing'),
    ),
  )
  example = VlmLines([path])[0]
  assert list(example.spans) == [
    text('Which?'),
    picture(tmp_path, 'a.png'),
    text('CT', has_loss=True),
    # Words alone are left as they are.
    text(' Sure? '),
    text('<image'),
    text('yes, no <image> is missing', has_loss=True),
  ]
  assert example.answer == 'yes, no <image> is missing'


@pytest.mark.parametrize('image', [None, []])
def test_a_conversation_may_be_without_pictures(tmp_path, image):
  (spans,) = read(tmp_path, line(image, human('a'), gpt('b')))
  assert spans == [text('a'), text('b', has_loss=True)]


def test_an_index_selects_among_lines_of_several_files(tmp_path, monkeypatch):
  # Chunks that end within lines, and within the two characters of an end.
  monkeypatch.setattr('synermedgen_jax.interop.vlm_jsonl._CHUNK', 7)
  answers = ['a', 'ü' * 40, 'c', 'd']
  lines = [line([], human(words), gpt('yes')) for words in answers]
  first = tmp_path / 'a.jsonl'
  first.write_bytes(f'\n{lines[0]}\r\n\r\n{lines[1]}\n\n'.encode())
  second = write(tmp_path / 'b.jsonl', *lines[2:])
  source = VlmLines([first, second])
  assert len(source) == 4
  assert [source[i].spans[0].text for i in (3, 0, 1, 2)] == [
    *answers[3:],
    *answers[:3],
  ]


def test_paths_are_relative_to_the_pictures_folder(tmp_path):
  path = write(
    tmp_path / 'talk.jsonl', line('b/c.png', human('<image>'), gpt('d'))
  )
  (image, _) = VlmLines([path], tmp_path / 'slice')[0].spans
  assert image.image.path == tmp_path / 'slice' / 'b' / 'c.png'


GOOD = line([], human('a'), gpt('b'))


@pytest.mark.parametrize(
  ('bad', 'reason'),
  [
    ('{"image": ', 'is not JSON'),
    ('1', 'is not a JSON object'),
    ('[1, 2]', 'is not a JSON object'),
    ('{"conversations": 3}', 'conversations is not a list'),
    ('{"image": "a.png"}', 'conversations is not a list'),
    ('{"conversations": [{"from": "gpt"}]}', 'conversations is not a list'),
    ('{"conversations": []}', 'last turn is not an answer'),
    (line([], human('a')), 'last turn is not an answer'),
    (line([], gpt('a'), human('b')), 'last turn is not an answer'),
    (line([], human('a'), gpt('')), "gpt has the value ''"),
    (line([], human(3), gpt('a')), 'human has the value 3'),
    (
      line([], {'from': 'system', 'value': 'a'}, gpt('b')),
      "from is 'system', expected human or gpt",
    ),
    (line([3], human('<image>'), gpt('a')), 'image is not a path'),
    (line({'a': 'b'}, human('<image>'), gpt('a')), 'image is not a path'),
    (line([''], human('<image>'), gpt('a')), 'image is not a path'),
    (
      line(['a.png', 'b.png'], human('<image>'), gpt('a')),
      r'1 <image> placeholder\(s\) for 2 picture\(s\)',
    ),
    (
      line(['a.png'], human('<image><image>'), gpt('a')),
      r'2 <image> placeholder\(s\) for 1 picture\(s\)',
    ),
    # What the answer spells is no placeholder.
    (
      line(['a.png'], human('a'), gpt('<image>')),
      r'0 <image> placeholder\(s\) for 1 picture\(s\)',
    ),
    ('{"video": "a.mp4", "conversations": []}', 'only pictures are supported'),
  ],
)
def test_a_bad_line_is_named(tmp_path, bad, reason):
  path = write(tmp_path / 'talk.jsonl', GOOD, '', bad, GOOD)
  lines = VlmLines([path])
  assert lines[0].answer == lines[2].answer == 'b'
  with pytest.raises(
    FormatError, match=rf'talk\.jsonl: line 3: .*{reason}'
  ) as e:
    lines[1]
  assert '\n' not in str(e.value)


def test_a_file_without_a_line_is_named(tmp_path):
  path = write(tmp_path / 'talk.jsonl', '', '')
  with pytest.raises(FormatError, match=r'talk\.jsonl: holds no conversation'):
    VlmLines([path])


def seen(spans, read_image):
  """Kinds, texts, losses and pixels of spans, without the names of images."""
  return [
    (
      s.kind,
      s.text,
      s.has_loss,
      None if s.image is None else read_image(s.image),
    )
    for s in spans
  ]


def assert_same(actual, expected, read_image):
  for (*ours, shown), (*theirs, meant) in zip(
    seen(actual, read_image), seen(expected, read_image), strict=True
  ):
    assert ours == theirs
    if meant is not None:
      np.testing.assert_allclose(shown, meant, atol=1.001 / 255)


@pytest.mark.parametrize('task', ['cts', 'mi', 'tia'])
def test_questions_of_a_store_come_back(store_path, tmp_path, task):
  store = SliceStore.open(store_path)
  dataset = pipeline.example_dataset(
    Pool(store.split('train')), TASKS[task], seed=3
  )
  examples = [dataset[i] for i in range(5)]

  def read_image(ref):
    """Pixels that identify the slice after rounding to eight bits."""
    if not isinstance(ref, SliceRef):
      return ref.read()
    pixel = store.read_slice(ref.case, ref.modality, ref.index)[0, 0]
    mark = divmod(round((float(pixel) + 1) / 2 * 65535), 32)
    return np.asarray([mark, mark], np.float32) / 16 - 1

  path = write_vlm(examples, read_image, tmp_path / 'out')
  source = VlmLines([path])
  assert len(source) == 5
  for i, example in enumerate(examples):
    assert source[i].answer == example.answer
    assert_same(source[i].spans, example.spans, read_image)
  refs = {s.image for e in examples for s in e.spans if s.image}
  assert len(list((tmp_path / 'out').rglob('*.png'))) == len(refs)


def pixels(ref):
  return np.full((2, 2), ref.index / 4 - 1, np.float32)


words = st.text(min_size=1, max_size=5).filter(lambda t: '<image>' not in t)
spans_of_a_talk = st.lists(
  st.one_of(
    st.builds(text, words, st.booleans()),
    st.builds(text, st.sampled_from([' a', 'b\n', ' ', '<image', 'image>'])),
    st.builds(
      lambda i: vit_image(SliceRef('case', Modality.CT, i)), st.integers(0, 8)
    ),
  ),
  max_size=8,
)


@given(st.lists(spans_of_a_talk, min_size=1, max_size=3))
def test_any_spans_come_back(talks):
  examples = [
    Example('mi', (*spans, text('end', has_loss=True)), 'end')
    for spans in talks
  ]
  with tempfile.TemporaryDirectory() as folder:
    source = VlmLines([write_vlm(examples, pixels, folder)])
    assert len(source) == len(talks)
    for i, example in enumerate(examples):
      assert_same(
        source[i].spans,
        example.spans,
        lambda ref: pixels(ref) if isinstance(ref, SliceRef) else ref.read(),
      )


def test_what_is_written_reads_well(tmp_path):
  spans = [
    *(vit_image(SliceRef('case', Modality.CT, i)) for i in (5, 6, 5)),
    text('same?'),
    text('A yes'),
    text('yes', has_loss=True),
  ]
  example = Example('mi', tuple(spans), 'yes')
  path = write_vlm([example], pixels, tmp_path)
  assert json.loads(path.read_text()) == {
    'image': [f'images/0000/000000{i}.png' for i in (0, 1, 0)],
    'conversations': [
      human('<image>\n<image>\n<image>\nsame?'),
      human('A yes'),
      gpt('yes'),
    ],
  }


CT = SliceRef('case', Modality.CT, 1)


@pytest.mark.parametrize(
  ('spans', 'reason'),
  [
    ([vae_image(CT), text('a', True)], 'VAE image'),
    ([text('an <image>'), text('a', True)], "a text has '<image>'"),
    ([text('b', True), text('a')], 'does not end with an answer'),
    ([vit_image(CT)], 'does not end with an answer'),
  ],
)
def test_spans_that_the_format_cannot_hold_are_refused(tmp_path, spans, reason):
  answers = [s.text for s in spans if s.has_loss]
  example = Example('mi', tuple(spans), answers[-1] if answers else '')
  with pytest.raises(FormatError, match=reason):
    write_vlm([example], pixels, tmp_path)
  assert not (tmp_path / 'vlm.jsonl').exists()


def test_nothing_is_written_over(tmp_path):
  (tmp_path / 'vlm.jsonl').write_text('mine')
  with pytest.raises(FormatError, match=r'vlm\.jsonl: already exists'):
    write_vlm([], pixels, tmp_path)
  assert (tmp_path / 'vlm.jsonl').read_text() == 'mine'
