"""Training on files in BAGEL's formats, with and without a slice store."""

import itertools
import json
from collections import Counter

import commands
import jax
import nano
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from packing_fakes import GEOMETRY, Letters

from synermedgen_jax.checkpoint.data_position import (
  DataHandler,
  DataRestore,
  DataSave,
)
from synermedgen_jax.core.batch import Capacity
from synermedgen_jax.input import pipeline
from synermedgen_jax.input.streams import BatchIterator
from synermedgen_jax.input.tokenizer import project_tokenizer
from synermedgen_jax.interop import bagel_formats
from synermedgen_jax.interop.editing_parquet import SCHEMA
from synermedgen_jax.interop.image_files import FormatError, encode_png
from synermedgen_jax.slices.store import SliceStore
from synermedgen_jax.tasks.prompts import SHORT

ROOM = Capacity(und=40, gen=16, vit=8, images=4)


def png(level, height=4, width=4):
  return encode_png(np.full((height, width), level / 127.5 - 1, np.float32))


def write_talks(path, *answers, picture='p.png'):
  """A question about a picture for each answer."""
  conversations = [
    [
      {'from': 'human', 'value': '<image>\nab'},
      {'from': 'gpt', 'value': answer},
    ]
    for answer in answers
  ]
  lines = [
    json.dumps({'image': [picture], 'conversations': c}) for c in conversations
  ]
  path.write_text('\n'.join(lines))


def write_edits(path, *levels, words='ab'):
  """An edit of a picture of each level into one that is brighter by 1."""
  rows = [
    {'image_list': [png(n), png(n + 1)], 'instruction_list': [[words]]}
    for n in levels
  ]
  pq.write_table(pa.Table.from_pylist(rows, SCHEMA), path, row_group_size=2)


@pytest.fixture
def files(tmp_path):
  """Three conversations and five edits, as a config names them."""
  write_talks(tmp_path / 'talk.jsonl', 'c', 'd', 'e')
  write_edits(tmp_path / 'edits.parquet', *range(0, 50, 10))
  (tmp_path / 'p.png').write_bytes(png(102))
  return {
    'vlm': str(tmp_path / '*.jsonl'),
    'images': '',
    'editing': str(tmp_path / '*.parquet'),
    'val_vlm': '',
  }


def dataset(files, tasks, *, split='train', store=None, **values):
  arguments = {'rows': 1, 'seed': 0, 'packing_bins': 1} | values
  arguments = {
    'tokenizer': Letters(),
    'geometry': GEOMETRY,
    'capacity': ROOM,
  } | arguments
  return pipeline.train_dataset(
    store,
    split,
    arguments.pop('tokenizer'),
    arguments.pop('geometry'),
    arguments.pop('capacity'),
    pipeline.Mixture(
      tasks, prompts=SHORT, sources=bagel_formats.sources(files, split)
    ),
    **arguments,
  )


def take(batches, count):
  return list(itertools.islice(batches, count))


def row_of(batch, fields):
  return {name: getattr(batch, name)[0].tolist() for name in fields}


def test_a_conversation_is_marked_patches_question_and_answer(tmp_path, files):
  write_talks(tmp_path / 'talk.jsonl', 'c')
  room = Capacity(und=13, gen=0, vit=4, images=0)
  (batch,) = take(dataset(files, {'vlm': 1.0}, capacity=room), 1)
  # Vision start, four patches, vision end; start, a, b, end; start, c, end.
  assert row_of(batch, ['token_ids', 'vit_index', 'ntp_weight']) == {
    'token_ids': [3, 0, 0, 0, 0, 4, 1, 10, 11, 2, 1, 12, 2],
    'vit_index': [-1, 0, 1, 2, 3, *[-1] * 8],
    'ntp_weight': [0] * 10 + [1, 1, 0],
  }
  assert batch.labels[0, 10:12].tolist() == [12, 2]
  assert batch.und.positions[0].tolist() == [0] * 6 + [1, 2, 3, 4, 5, 6, 7]
  # All tokens see the image; words are visible to later tokens.
  assert batch.und.visible_from[0].tolist() == [0] * 6 + list(range(6, 13))
  assert batch.und.visible_to[0].tolist() == [13] * 13
  assert (batch.task_ids == 0).all()
  np.testing.assert_allclose(batch.vit_patches, 102 / 127.5 - 1, atol=1e-6)


def test_an_edit_is_source_words_and_noised_target(tmp_path, files):
  write_edits(tmp_path / 'edits.parquet', 50)
  room = Capacity(und=14, gen=8, vit=4, images=2)
  (batch,) = take(dataset(files, {'editing': 1.0}, capacity=room), 1)
  assert batch.token_ids[0].tolist() == [
    *(3, 4),  # around the source's latents
    *(3, 0, 0, 0, 0, 4),
    *(1, 10, 11, 2),
    *(3, 4),  # around the target's
  ]
  assert batch.noise_ids[0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
  assert batch.gen.positions[0].tolist() == [0] * 4 + [6] * 4
  # What is noised is seen by itself alone.
  assert batch.gen.visible_from[0].tolist() == [0] * 4 + [16] * 4
  assert batch.gen.visible_to[0].tolist() == [22] * 8
  assert batch.und.visible_to[0].tolist() == [22] * 14
  assert (batch.task_ids == 0).all()
  levels = (batch.vae_images[0, :, :, :, 0] + 1) * 127.5
  np.testing.assert_allclose(levels[0], 50, atol=1e-3)
  np.testing.assert_allclose(levels[1], 51, atol=1e-3)


def test_pictures_of_any_shape_and_colour_are_taken(tmp_path, files):
  colour = np.full((2, 4, 3), -1.0, np.float32)
  colour[..., 1] = 1
  (tmp_path / 'p.png').write_bytes(encode_png(colour))
  room = Capacity(und=13, gen=0, vit=4, images=0)
  (batch,) = take(dataset(files, {'vlm': 1.0}, capacity=room), 1)
  # Black, green as a grey model sees it, green, black.
  green = 2 * 0.587 - 1
  np.testing.assert_allclose(
    batch.vit_patches[0],
    [[-1, -1, green, green]] * 2 + [[green, green, -1, -1]] * 2,
    atol=1e-6,
  )


def test_an_epoch_has_every_example_once(files):
  batches = take(dataset(files, {'vlm': 0.5, 'editing': 0.5}), 40)
  answers, targets, order = Counter(), Counter(), []
  for batch in batches:
    spoken = batch.labels[0][batch.ntp_weight[0] > 0]
    answers.update(label for label in spoken.tolist() if label > 2)
    for image in np.unique(batch.latent_index[0][batch.noise_ids[0] > 0] // 4):
      level = round((float(batch.vae_images[0, image, 0, 0, 0]) + 1) * 127.5)
      targets[level] += 1
      order.append(level)
  assert set(answers) == {12, 13, 14}
  assert max(answers.values()) - min(answers.values()) <= 1
  assert set(targets) == {1, 11, 21, 31, 41}
  assert max(targets.values()) - min(targets.values()) <= 1
  assert order[:5] != order[5:10]
  assert abs(sum(answers.values()) - sum(targets.values())) <= 2


def test_they_mix_with_the_tasks_of_a_store(files, store_path):
  tasks = {'cts': 0.2, 'synthesis': 0.2, 'vlm': 0.3, 'editing': 0.3}
  batches = take(
    dataset(
      files,
      tasks,
      store=SliceStore.open(store_path),
      tokenizer=project_tokenizer(),
      geometry=nano.GEOMETRY,
      capacity=nano.CAPACITY,
      rows=2,
    ),
    60,
  )
  counts = Counter()
  for batch in batches:
    for ids, of in zip(batch.und.example_ids, batch.task_ids, strict=True):
      pairs = set(zip(ids.tolist(), of.tolist(), strict=True))
      counts.update(task for example, task in pairs if example)
  for task, share in tasks.items():
    count = counts[sorted(tasks).index(task)]
    assert abs(count / counts.total() - share) < 0.05


def test_a_restored_iterator_goes_on_where_it_was(files):
  tasks = {'vlm': 0.5, 'editing': 0.5}
  iterator = iter(dataset(files, tasks, packing_bins=4))
  take(iterator, 3)
  state = iterator.get_state()
  expected = take(iterator, 6)
  fresh = iter(dataset(files, tasks, packing_bins=4))
  fresh.set_state(state)
  for ours, theirs in zip(
    jax.tree.leaves(take(fresh, 6)), jax.tree.leaves(expected), strict=True
  ):
    np.testing.assert_array_equal(ours, theirs)


def test_streams_share_out_one_sequence(files):
  def targets(count, **values):
    room = Capacity(und=14, gen=8, vit=4, images=2)
    batches = dataset(files, {'editing': 1.0}, capacity=room, **values)
    return [
      float(image)
      for batch in take(batches, count)
      for image in batch.vae_images[:, 1, 0, 0, 0]
    ]

  whole = targets(10)
  parts = [targets(5, rows=2, streams=2, local_streams=[i]) for i in range(2)]
  assert sorted(parts[0] + parts[1]) == sorted(whole)


def test_conditions_of_edits_are_dropped_and_those_of_talks_not(files):
  batches = take(
    dataset(
      files,
      {'vlm': 0.5, 'editing': 0.5},
      dropout=pipeline.Dropout(text=1.0, vae=1.0, vit=1.0),
    ),
    6,
  )
  for batch in batches:
    kinds = batch.task_ids[0][batch.vit_index[0] >= 0]
    assert (kinds == 1).all()  # editing, vlm
    assert (batch.noise_ids[0][batch.gen.example_ids[0] > 0] > 0).all()
    words = batch.task_ids[0][batch.token_ids[0] >= 10]
    assert len(words)
    assert (words == 1).all()


@pytest.mark.parametrize(
  ('task', 'values', 'split', 'reason'),
  [
    ('vlm', {'vlm': ''}, 'train', r'bagel_files\.vlm is empty'),
    ('editing', {'editing': ''}, 'train', r'bagel_files\.editing is empty'),
    ('vlm', {}, 'val', r'val_vlm is empty: .* or set config\.val_every=0'),
    ('editing', {}, 'val', r'val_editing is empty'),
    ('vlm', {'vlm': 'none/*.jsonl'}, 'train', r'no file none/\*\.jsonl'),
    ('editing', {'editing': '.'}, 'train', r'bagel_files\.editing: no file \.'),
    ('cts', {}, 'train', r'config\.store is empty'),
  ],
)
def test_missing_data_is_named(files, task, values, split, reason):
  with pytest.raises(ValueError, match=reason):
    dataset(files | values, {task: 1.0}, split=split)


def more_edits(folder):
  write_edits(folder / 'more.parquet', 60)


def a_line_less(folder):
  write_talks(folder / 'talk.jsonl', 'c', 'd')


def position(files):
  """The start of a run on these files, of which nothing else is known."""
  contents = bagel_formats.contents(files, 'train', ['vlm', 'editing', 'cts'])
  assert contents.keys() == {'vlm', 'editing'}
  return BatchIterator({}, {'streams': 0, 'bagel_contents': contents})


@pytest.mark.parametrize('change', [more_edits, a_line_less])
def test_a_run_does_not_resume_where_its_files_changed(tmp_path, files, change):
  saved = tmp_path / 'saved'
  saved.mkdir()
  DataHandler().save(saved, DataSave.of(position(files)))
  DataHandler().restore(saved, DataRestore(position(files)))
  change(tmp_path)
  with pytest.raises(ValueError, match=r'files of config\.bagel_files were '):
    DataHandler().restore(saved, DataRestore(position(files)))


def test_a_position_of_before_files_were_recorded_is_read(tmp_path, files):
  before = BatchIterator({}, {'streams': 0})
  saved = tmp_path / 'saved'
  saved.mkdir()
  DataHandler().save(saved, DataSave.of(before))
  DataHandler().restore(saved, DataRestore(position(files)))


def test_a_file_of_another_format_is_refused_at_once(tmp_path, files):
  (tmp_path / 'talk.jsonl').write_text('[\n')
  with pytest.raises(FormatError, match=r'talk\.jsonl: line 1: is not JSON'):
    dataset(files, {'vlm': 1.0})


@pytest.mark.parametrize(
  ('spoil', 'task', 'reason'),
  [
    (lambda folder: (folder / 'p.png').unlink(), 'vlm', r'line \d: picture'),
    (
      lambda folder: write_edits(folder / 'edits.parquet', 1, 2, words=''),
      'editing',
      r'row \d: step 0 of instruction_list has an empty',
    ),
  ],
)
def test_a_damaged_row_is_reported_when_it_is_read(
  tmp_path, files, spoil, task, reason
):
  spoil(tmp_path)
  # Among the first examples, which are tried before the first row.
  with pytest.raises(FormatError, match=reason):
    take(dataset(files, {task: 1.0}), 10)


def train(tmp_path, files, workdir, **values):
  """`main` for a little joint training without a slice store."""
  options = {
    'image.vit_size': (nano.CANVAS, nano.CANVAS),
    'image.vae_size': (nano.CANVAS, nano.CANVAS),
    'capacity.und': nano.CAPACITY.und,
    'capacity.gen': nano.CAPACITY.gen,
    'capacity.vit': nano.CAPACITY.vit,
    'rows': 2,
    'streams': 2,
    'packing_bins': 2,
    # As in `nano.JOINT`, so that the programs are the same.
    'steps': 4,
    'warmup': 0,
    'optimizer': 'adamw',
    'log_every': 1,
    'val_every': 4,
    'val_batches': 1,
    **{f'tasks.{task}': 0.0 for task in ('cts', 'mi', 'tia', 'synthesis')},
    'tasks.vlm': 0.5,
    'tasks.editing': 0.5,
    **{f'bagel_files.{key}': value for key, value in files.items()},
    'bagel_files.val_editing': files['editing'],
    **values,
  }
  return commands.run(
    'main',
    f'--config={nano.CONFIGS}/joint.py',
    '--config.model=nano',
    '--config.from_scratch',
    f'--workdir={tmp_path / workdir}',
    *(f'--config.{key}={value}' for key, value in options.items()),
  )


@pytest.mark.usefixtures('quick_compiles', 'nano_preset')
def test_main_trains_on_them_without_a_store(tmp_path, files):
  files |= {'val_vlm': files['vlm']}
  code, _, err = train(tmp_path, files, 'joint')
  assert code == 0, err
  lines = (tmp_path / 'joint' / 'metrics.jsonl').read_text().splitlines()
  metrics = {}
  for line in lines:
    metrics |= json.loads(line)
  assert metrics['step'] == 4
  for name in ('ntp/vlm', 'flow', 'val/ntp/vlm', 'val/flow'):
    assert np.isfinite(metrics[name])
  assert not any('cts' in name for name in metrics)
  (path,) = (tmp_path / 'joint').glob('checkpoints/4/data/layout.json')
  layout, _ = json.loads(path.read_text())
  assert layout['bagel_contents'] == bagel_formats.contents(
    files, 'train', ['vlm', 'editing']
  )


@pytest.mark.usefixtures('nano_preset')
def test_main_refuses_in_one_line(tmp_path, files):
  result = train(tmp_path, files, 'joint')
  commands.assert_refused(result, 'config.bagel_files.val_vlm is empty')
  assert not (tmp_path / 'joint').exists()
