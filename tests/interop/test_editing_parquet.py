"""Edits in small tables, with hand-written spans."""

import itertools
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from synermedgen_jax.core.modalities import Modality, route_named
from synermedgen_jax.interop import editing_parquet
from synermedgen_jax.interop.editing_parquet import (
  SCHEMA,
  EditingRows,
  build,
  editing_dataset,
  write_editing,
)
from synermedgen_jax.interop.image_files import (
  FormatError,
  PictureBytes,
  encode_png,
)
from synermedgen_jax.tasks import synthesis
from synermedgen_jax.tasks.example import (
  Example,
  SliceRef,
  text,
  vae_image,
  vit_image,
)
from synermedgen_jax.tasks.prompts import SHORT


def png(level):
  return encode_png(np.full((2, 2), level / 127.5 - 1, np.float32))


def chain(*levels, words):
  return {
    'image_list': [png(level) for level in levels],
    'instruction_list': words,
  }


def write(path, *rows, schema=SCHEMA, **options):
  pq.write_table(pa.Table.from_pylist(list(rows), schema), path, **options)
  return path


def level(image):
  """The grey level that all of a picture has."""
  (value,) = {round((float(v) + 1) * 127.5) for v in image.read().ravel()}
  return value


def spans(example):
  """(kind, words or level, loss) of every span."""
  return [(s.kind, s.text or level(s.image), s.has_loss) for s in example.spans]


def clean(number):
  return [('vae_image', number, False), ('vit_image', number, False)]


def step(words, number):
  return [('text', words, False), ('vae_image', number, True)]


def drawn(row, count=200):
  """All examples that are drawn of a row, as their spans."""
  examples = [build(row, np.random.default_rng(i)) for i in range(count)]
  assert {e.task for e in examples} == {'editing'}
  return Counter(tuple(spans(e)) for e in examples)


def test_a_pair_is_source_instruction_and_noised_target(tmp_path):
  path = write(tmp_path / 'a.parquet', chain(10, 20, words=[['redden it']]))
  assert list(drawn(EditingRows([path])[0], 10)) == [
    (*clean(10), *step('redden it', 20))
  ]


def test_every_wording_is_drawn(tmp_path):
  wordings = ['a', 'b', 'c']
  path = write(tmp_path / 'a.parquet', chain(10, 20, words=[wordings]))
  examples = drawn(EditingRows([path])[0])
  assert set(examples) == {(*clean(10), *step(w, 20)) for w in wordings}
  assert min(examples.values()) > 40


def test_a_longer_chain_gives_one_step_or_two(tmp_path):
  path = write(
    tmp_path / 'a.parquet', chain(1, 2, 3, 4, words=[['a'], ['b.'], ['c']])
  )
  examples = drawn(EditingRows([path])[0])
  assert set(examples) == {
    (*clean(1), *step('a', 2)),
    (*clean(2), *step('b.', 3)),
    (*clean(3), *step('c', 4)),
    # Two, the one after the other.
    (*clean(1), *step('a', 2), *clean(2), *step('b.', 3)),
    (*clean(2), *step('b.', 3), *clean(3), *step('c', 4)),
    # Two as one.
    (*clean(1), *step('a. b.', 3)),
    (*clean(2), *step('b. c.', 4)),
  }


def test_one_instruction_for_several_pictures_has_them_as_sources(tmp_path):
  """As SynerMedGen's edit_dataset_new.py: no step is drawn."""
  row = chain(1, 2, 3, 4, words=[['join them', 'merge']])
  path = write(tmp_path / 'a.parquet', row)
  assert set(drawn(EditingRows([path])[0])) == {
    (*clean(1), *clean(2), *clean(3), *step(words, 4))
    for words in ('join them', 'merge')
  }


PAIRS = [['c'], ['b'], ['c'], ['c'], ['c'], ['c']]
CHAINS = [['C'], ['b. C.'], ['c'], ['c'], ['C'], ['C']]


def test_draws_of_pairs_and_chains_are_those_of_all_versions(tmp_path):
  """Written down before rows could have several sources."""
  pair, longer = (
    chain(10, 20, words=[['a', 'b', 'c']]),
    chain(1, 2, 3, 4, words=[['a', 'A'], ['b'], ['c', 'C']]),
  )
  rows = EditingRows([write(tmp_path / 'a.parquet', pair, longer)])

  def words(row, seed):
    example = build(row, np.random.default_rng(seed))
    return [s.text for s in example.spans if s.kind == 'text']

  assert [words(rows[0], seed) for seed in range(6)] == PAIRS
  assert [words(rows[1], seed) for seed in range(6)] == CHAINS


def test_a_column_of_combined_instructions_is_refused(tmp_path):
  schema = SCHEMA.append(pa.field('combined_instruction', pa.string()))
  row = chain(1, 2, 3, words=[['a'], ['b']]) | {'combined_instruction': 'c'}
  path = write(tmp_path / 'a.parquet', row, schema=schema)
  with pytest.raises(
    FormatError,
    match=r'a\.parquet: has a column combined_instruction, which is not read; '
    'write its wordings as the only list of instruction_list',
  ):
    EditingRows([path])


def pairs(first, count):
  return [chain(first + i, 200, words=[['a']]) for i in range(count)]


def source(chain):
  """The first picture of a chain."""
  return chain.steps[0].sources[0]


def source_level(example):
  return level(example.spans[0].image)


@pytest.fixture
def rows(tmp_path):
  """Row groups of 2, 2, 1 and 3 rows in two files."""
  paths = [
    write(tmp_path / 'a.parquet', *pairs(0, 5), row_group_size=2),
    write(tmp_path / 'b.parquet', *pairs(5, 3)),
  ]
  return EditingRows(paths)


def test_an_index_selects_among_rows_of_several_files(rows):
  assert len(rows) == 8
  assert rows.sizes == [2, 2, 1, 3]
  for i in (7, 0, 4, 5, 1):
    assert level(source(rows[i])) == i
  with pytest.raises(IndexError):
    rows[8]


def test_every_epoch_has_all_rows_once_in_an_order_of_its_own(rows):
  dataset = editing_dataset(rows, seed=1)
  epochs = [
    [source_level(dataset[8 * epoch + i]) for i in range(8)]
    for epoch in range(4)
  ]
  assert all(sorted(epoch) == list(range(8)) for epoch in epochs)
  assert len(set(map(tuple, epochs))) == 4
  again = editing_dataset(rows, seed=1)
  assert [source_level(again[16 + i]) for i in range(8)] == epochs[2]
  other = editing_dataset(rows, seed=2)
  assert [source_level(other[i]) for i in range(8)] != epochs[0]


def test_a_row_group_is_read_once_an_epoch(tmp_path, monkeypatch):
  monkeypatch.setattr(editing_parquet, '_OPEN_GROUPS', 2)
  path = write(tmp_path / 'a.parquet', *pairs(0, 40), row_group_size=4)
  read = []
  original = pq.ParquetFile.read_row_group

  def counted(self, group, **options):
    read.append(group)
    return original(self, group, **options)

  monkeypatch.setattr(pq.ParquetFile, 'read_row_group', counted)
  dataset = editing_dataset(EditingRows([path]), seed=0)
  levels = [source_level(dataset[i]) for i in range(40)]
  assert sorted(levels) == list(range(40))
  assert sorted(read) == list(range(10))
  # Rows of two groups are shuffled together.
  assert any(a // 4 != b // 4 for a, b in itertools.pairwise(levels[:8]))


def test_large_lists_are_read_too(tmp_path):
  schema = pa.schema(
    [
      ('image_list', pa.large_list(pa.large_binary())),
      ('instruction_list', pa.large_list(pa.large_list(pa.large_string()))),
      ('note', pa.string()),
    ]
  )
  row = chain(10, 20, words=[['a']]) | {'note': 'b'}
  path = write(tmp_path / 'a.parquet', row, schema=schema)
  assert level(EditingRows([path])[0].steps[0].target) == 20


@pytest.mark.parametrize(
  ('row', 'reason'),
  [
    (chain(1, words=[]), r'has 1 picture\(s\); an edit needs two'),
    ({'image_list': None}, r'has 0 picture\(s\); an edit needs two'),
    (
      chain(1, 2, words=[['a'], ['b']]),
      r'has 2 step\(s\) for 2 pictures, expected 1',
    ),
    (
      chain(1, 2, 3, 4, words=[['a'], ['b']]),
      r'2 step\(s\) for 4 pictures, expected 3, or 1 for several sources',
    ),
    (chain(1, 2, words=[[]]), 'step 0 of instruction_list has an empty'),
    (
      chain(1, 2, 3, words=[['a'], ['b', '']]),
      'step 1 of instruction_list has an empty',
    ),
    (chain(1, 2, words=[[None]]), 'step 0 of instruction_list has an empty'),
    (chain(1, 2, words=[None]), 'step 0 of instruction_list has an empty'),
  ],
)
def test_a_bad_row_is_named(tmp_path, row, reason):
  path = write(tmp_path / 'a.parquet', *pairs(0, 3), row, row_group_size=2)
  rows = EditingRows([path])
  assert level(source(rows[2])) == 2
  with pytest.raises(FormatError, match=rf'a\.parquet: row 3: .*{reason}'):
    rows[3]


@pytest.mark.parametrize('data', [None, b'', b'\x89PNG no'])
def test_bytes_that_are_no_picture_are_named(tmp_path, data):
  row = {'image_list': [png(1), data], 'instruction_list': [['a']]}
  example = build(
    EditingRows([write(tmp_path / 'a.parquet', row)])[0],
    np.random.default_rng(0),
  )
  with pytest.raises(
    FormatError,
    match=r'a\.parquet: row 0: picture 1 of image_list cannot be read',
  ):
    example.spans[-1].image.read()


@pytest.mark.parametrize(
  ('column', 'kind', 'reason'),
  [
    ('image_list', pa.list_(pa.string()), 'expected lists of bytes'),
    ('image_list', pa.binary(), 'expected lists of bytes'),
    (
      'instruction_list',
      pa.list_(pa.string()),
      'expected lists of lists of strings',
    ),
    ('instruction_list', None, 'has no column instruction_list'),
  ],
)
def test_a_table_of_other_columns_is_named(tmp_path, column, kind, reason):
  fields = {name: SCHEMA.field(name).type for name in SCHEMA.names}
  fields[column] = kind
  fields = {name: kind for name, kind in fields.items() if kind is not None}
  schema = pa.schema(list(fields.items()))
  path = tmp_path / 'a.parquet'
  pq.write_table(schema.empty_table(), path)
  with pytest.raises(FormatError, match=rf'a\.parquet: .*{reason}'):
    EditingRows([path])


def test_incomplete_files_are_named(tmp_path):
  path = write(tmp_path / 'a.parquet', *pairs(0, 3))
  data = path.read_bytes()
  for spoilt in (b'', b'PAR1', data[:-20]):
    path.write_bytes(spoilt)
    with pytest.raises(FormatError, match=r'a\.parquet: is not a comp') as e:
      EditingRows([path])
    assert '\n' not in str(e.value)
  pq.write_table(SCHEMA.empty_table(), path)
  with pytest.raises(FormatError, match=r'a\.parquet: holds no row'):
    EditingRows([path])


def test_a_row_group_that_is_spoilt_is_named(tmp_path):
  path = write(tmp_path / 'a.parquet', *pairs(0, 3), compression='snappy')
  data = bytearray(path.read_bytes())
  data[4:60] = bytes(56)
  path.write_bytes(data)
  rows = EditingRows([path])
  with pytest.raises(FormatError, match=r'a\.parquet: row group 0 cannot') as e:
    rows[0]
  assert '\n' not in str(e.value)


def pixels(ref):
  """Pixels that encode modality and index."""
  marks = [list(Modality).index(ref.modality), ref.index]
  return np.asarray([marks, marks], np.float32) / 16 - 1


ROUTE = route_named('brain_mr_to_ct')


def synthesis_example(index):
  return synthesis.prompt(ROUTE, 'case', index, SHORT)


@pytest.mark.parametrize(
  'name',
  ['brain_mr_to_ct', 'brats_t1+t2_to_flair', 'brats_t1+t2+flair_to_t1ce'],
)
def test_synthesis_comes_back(tmp_path, monkeypatch, name):
  monkeypatch.setattr(editing_parquet, '_ROWS_PER_GROUP', 2)
  examples = [
    synthesis.prompt(route_named(name), 'case', i, SHORT) for i in range(5)
  ]
  path = write_editing(examples, pixels, tmp_path / 'new' / 'a.parquet')
  rows = EditingRows([path])
  assert rows.sizes == [2, 2, 1]
  for i, example in enumerate(examples):
    built = build(rows[i], np.random.default_rng(i))
    for ours, theirs in zip(built.spans, example.spans, strict=True):
      assert ours.kind == theirs.kind
      assert (ours.text, ours.has_loss) == (theirs.text, theirs.has_loss)
      if theirs.image:
        np.testing.assert_allclose(
          ours.image.read(), pixels(theirs.image), atol=1.001 / 255
        )


def test_several_sources_are_written_before_their_target(tmp_path):
  route = route_named('brats_t1+t2_to_flair')
  example = synthesis.prompt(route, 'case', 3, SHORT)
  path = write_editing([example], pixels, tmp_path / 'a.parquet')
  (row,) = pq.read_table(path).to_pylist()
  assert row['instruction_list'] == [
    ['convert brain T1 (MRI) and T2 (MRI) to FLAIR (MRI)']
  ]
  assert row['image_list'] == [
    encode_png(pixels(SliceRef('c', Modality(m), 3)))
    for m in ('t1', 't2', 'flair')
  ]


def test_a_written_file_has_the_columns_of_the_format(tmp_path):
  path = write_editing([synthesis_example(3)], pixels, tmp_path / 'a.parquet')
  table = pq.read_table(path)
  assert table.schema.equals(SCHEMA)
  (row,) = table.to_pylist()
  assert row['instruction_list'] == [['convert brain MRI to CT']]
  expected = [encode_png(pixels(SliceRef('c', m, 3))) for m in ('mr', 'ct')]
  assert row['image_list'] == expected


A, B = (SliceRef('case', Modality.CT, i) for i in range(2))


@pytest.mark.parametrize(
  'parts',
  [
    [text('a')],
    [vae_image(A), vit_image(A), text('a')],
    [vae_image(A), text('a'), vae_image(B, has_loss=True)],
    [vae_image(A), vit_image(B), text('a'), vae_image(B, has_loss=True)],
    [vae_image(A), vit_image(A), text('a'), vae_image(B), text('b')],
    [
      *(vae_image(A), vae_image(B), vit_image(A), vit_image(B)),
      *(text('a'), vae_image(B, has_loss=True)),
    ],
    [
      *(vae_image(A), vit_image(A), text('a'), vae_image(B), vit_image(B)),
      *(text('b'), vae_image(A, has_loss=True)),
    ],
    [text('a'), vae_image(B, has_loss=True)],
  ],
)
def test_other_examples_are_refused(tmp_path, parts):
  with pytest.raises(FormatError, match="task 'synthesis' is not a source"):
    write_editing(
      [Example('synthesis', tuple(parts))], pixels, tmp_path / 'a.parquet'
    )
  assert not (tmp_path / 'a.parquet').exists()


def test_nothing_is_written_over(tmp_path):
  path = tmp_path / 'a.parquet'
  path.write_text('mine')
  with pytest.raises(FormatError, match=r'a\.parquet: already exists'):
    write_editing([], pixels, path)
  assert path.read_text() == 'mine'


def test_a_picture_of_a_table_does_not_print_its_bytes():
  assert 'PNG' not in repr(PictureBytes(b'\x89PNG', 'a: row 1'))
