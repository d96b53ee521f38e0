"""Batches from a store whose pixels identify their slice."""

import dataclasses
import itertools
from collections import Counter

import jax
import nano
import numpy as np
import pytest
from store_fakes import USABLE, cases_of, slice_of

from synermedgen_jax.core.batch import Capacity
from synermedgen_jax.input import pipeline
from synermedgen_jax.input.augment import Augment
from synermedgen_jax.input.mixture import Dropout, Mixture
from synermedgen_jax.input.row_sizes import ExampleTooLarge
from synermedgen_jax.input.tokenizer import project_tokenizer
from synermedgen_jax.slices.store import SliceStore
from synermedgen_jax.tasks.pairs import Pool, some_subjects
from synermedgen_jax.tasks.prompts import PAPER, SHORT
from synermedgen_jax.tasks.registry import TASKS

QUESTIONS = {'cts': 0.2, 'mi': 0.3, 'tia': 0.5}
EVERYTHING = {'cts': 1, 'mi': 1, 'tia': 1, 'synthesis': 2}


@pytest.fixture(scope='module')
def store(store_path):
  return SliceStore.open(store_path)


MIXTURE = (
  *('prompts', 'neighbours', 'routes', 'max_sources', 'route_weights'),
  *('sources', 'subjects'),
)
# One synthesis from three sources a row.
THREE = {'und': 39, 'gen': 16, 'vit': 12, 'images': 4}


def dataset(store, tasks=None, *, split='train', capacity=nano.CAPACITY, **kw):
  mixture = {'prompts': SHORT} | {k: kw.pop(k) for k in MIXTURE if k in kw}
  arguments = {'rows': 2, 'seed': 0, 'packing_bins': 2} | kw
  return pipeline.train_dataset(
    store,
    split,
    project_tokenizer(),
    nano.GEOMETRY,
    capacity,
    Mixture(tasks or {'synthesis': 1.0}, **mixture),
    **arguments,
  )


def take(batches, count):
  return list(itertools.islice(batches, count))


def assert_equal(actual, expected):
  for a, b in zip(
    jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True
  ):
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(a, b)


def rows(batches):
  """The bytes of every row, in any order: packers shuffle them."""
  return Counter(
    b''.join(np.asarray(leaf[i]).tobytes() for leaf in jax.tree.leaves(batch))
    for batch in batches
    for i in range(len(batch.token_ids))
  )


def slices(batch):
  """Every slice that a batch shows, once an image."""
  patches = batch.vit_patches[batch.vit_visible_to > 0]
  shown = [slice_of(pixels[0]) for pixels in patches]
  for i in range(len(batch.vae_images)):
    used = batch.gen.example_ids[i] > 0
    canvases = set(batch.latent_index[i][used] // 4)
    shown += [slice_of(batch.vae_images[i, c, 0, 0, 0]) for c in canvases]
  return shown


def shown_routes(batches):
  """Number of examples per pair of source and target modality."""
  return Counter(
    tuple(slice_of(canvas[0, 0, 0]).modality for canvas in canvases)
    for batch in batches
    for canvases in batch.vae_images
  )


def test_a_seed_fixes_every_byte(store):
  first, again = (take(dataset(store, EVERYTHING), 6) for _ in range(2))
  assert_equal(first, again)
  other = take(dataset(store, EVERYTHING, seed=1), 6)
  assert not rows(first) & rows(other)


def test_reader_threads_change_nothing(store):
  one, four = (take(dataset(store, EVERYTHING, threads=n), 6) for n in (1, 4))
  assert_equal(one, four)


def test_streams_share_out_one_sequence(store):
  # Undropped examples fill a row each, so rows can be compared.
  both = take(dataset(store, rows=4), 4)
  parts = [
    take(dataset(store, rows=4, streams=2, local_streams=[i]), 4)
    for i in range(2)
  ]
  assert rows(parts[0]) + rows(parts[1]) == rows(both)
  assert not rows(parts[0]) & rows(parts[1])


def test_an_epoch_shows_every_pair_once(store):
  # Both ways of two pairs of modalities, and of the six of four contrasts.
  routes = 2 + 2 + 12
  batches = take(dataset(store), routes * len(USABLE) // 2)
  targets = Counter(
    tuple(slice_of(canvas[0, 0, 0]) for canvas in canvases)
    for batch in batches
    for canvases in batch.vae_images
  )
  assert len(targets) == routes * len(USABLE)
  assert all(source.index == to.index for source, to in targets)
  assert all(source.case == to.case for source, to in targets)


@pytest.mark.parametrize('tasks', [QUESTIONS, EVERYTHING])
def test_a_restored_iterator_goes_on_where_it_was(store, tasks):
  iterator = iter(dataset(store, tasks, packing_bins=8))
  take(iterator, 3)
  state = iterator.get_state()
  expected = take(iterator, 8)
  fresh = iter(dataset(store, tasks, packing_bins=8))
  fresh.set_state(state)
  assert_equal(take(fresh, 8), expected)


@pytest.mark.parametrize(
  ('tasks', 'streams'),
  [
    (QUESTIONS, 1),
    ({'cts': 0.5, 'synthesis': 0.5}, 2),  # in turn, one task a stream
    ({'cts': 0.25, 'synthesis': 0.75}, 4),
  ],
)
def test_tasks_come_in_the_shares_of_the_config(store, tasks, streams):
  """In rows of several questions, or of one synthesis and some questions."""
  counts = Counter()
  room = Capacity(und=300, gen=8, vit=80, images=2)
  data = dataset(store, tasks, capacity=room, rows=4, streams=streams)
  for batch in take(data, 60):
    for ids, numbers in zip(batch.und.example_ids, batch.task_ids, strict=True):
      counts.update(
        task for example, task in set(zip(ids, numbers, strict=True)) if example
      )
  total = sum(counts.values())
  assert total >= 200
  for task, share in tasks.items():
    assert abs(counts[sorted(tasks).index(task)] / total - share) < 0.03


@pytest.mark.parametrize(
  ('tasks', 'images'),
  [(EVERYTHING, 2), ({'reconstruction': 1.0}, 2)],
  ids=['language', 'autoencoder'],
)
@pytest.mark.parametrize('split', ['train', 'val'])
def test_no_subject_of_another_split_is_ever_shown(store, split, tasks, images):
  batches = take(dataset(store, tasks, split=split), 150)
  shown = {ref for batch in batches for ref in slices(batch)}
  # All of the split's own, so that the marks were read rightly.
  assert {ref.case for ref in shown} == cases_of(store, split)
  assert {ref.index for ref in shown} == set(USABLE)


def test_conditions_are_dropped_at_their_rates(store):
  rates = Dropout(text=0.2, vae=0.5, vit=0.8)
  counts = Counter()
  total = 0
  start = project_tokenizer().im_start
  for batch in take(dataset(store, dropout=rates), 200):
    for row, ids in enumerate(batch.und.example_ids):
      for example in range(1, ids.max() + 1):
        und = ids == example
        gen = batch.gen.example_ids[row] == example
        noised = batch.noise_ids[row] > 0
        assert (gen & noised).sum() == 4
        counts['text'] += start not in batch.token_ids[row][und]
        counts['vae'] += not (gen & ~noised).any()
        counts['vit'] += not (batch.vit_index[row][und] >= 0).any()
        total += 1
  for name in ('text', 'vae', 'vit'):
    assert abs(counts[name] / total - getattr(rates, name)) < 0.07


def test_questions_keep_all_images_at_any_dropout(store):
  everything = Dropout(text=1.0, vae=1.0, vit=1.0)
  plain, dropped = (
    take(dataset(store, QUESTIONS, dropout=d), 4)
    for d in (Dropout(), everything)
  )
  assert_equal(plain, dropped)


def test_routes_without_a_pair_are_named(store):
  with pytest.raises(
    ValueError,
    match=r"No pair for task 'synthesis' among the routes whole_body_pet_to_ct",
  ):
    dataset(store, routes=('whole_body_pet_to_ct',))


def test_only_the_routes_of_the_config_are_shown(store):
  batches = take(dataset(store, routes=('brain_mr_to_ct',)), 10)
  assert set(shown_routes(batches)) == {('mr', 'ct')}


def test_routes_come_as_often_as_they_weigh(store):
  # Of 16 routes with as many pairs each, two weigh 3 and twelve 0.5: 14 in all.
  weights = (('brain_.*', 3.0), ('brats_.*', 0.5), ('brain_ct.*', 9.0))
  counts = shown_routes(take(dataset(store, route_weights=weights), 140))
  brain = counts['mr', 'ct'], counts['ct', 'mr']
  pelvis = counts['cbct', 'ct'] + counts['ct', 'cbct']
  assert counts.total() == 280
  assert brain == pytest.approx((60, 60), abs=3)
  assert pelvis == pytest.approx(40, abs=3)
  assert len(counts) == 16


def test_questions_are_of_all_routes_alike(store):
  heavy = (('brain_mr_to_ct', 1000.0),)
  plain, weighed = (
    take(dataset(store, {'tia': 1.0}, route_weights=w), 4) for w in ((), heavy)
  )
  assert_equal(weighed, plain)


def test_pairs_of_a_heavy_route_are_all_shown_before_one_comes_again(store):
  weights = (('brain_mr_to_ct', 1e6),)
  batches = take(dataset(store, route_weights=weights), len(USABLE))
  targets = [
    slice_of(canvases[1, 0, 0, 0])
    for batch in batches
    for canvases in batch.vae_images
  ]
  assert set(shown_routes(batches)) == {('mr', 'ct')}
  assert set(Counter(targets).values()) == {2}
  assert len(set(targets)) == len(USABLE)


def test_routes_of_other_weights_come_in_other_orders(store):
  both = ('brain_mr_to_ct', 'brain_ct_to_mr')
  examples = pipeline.example_dataset(
    Pool(store.split('train'), routes=both),
    TASKS['synthesis'],
    seed=0,
    route_weights=tuple(zip(both, (2.0, 3.0), strict=True)),
  )
  orders = {route: [] for route in both}
  for example in (examples[i] for i in range(30)):
    (source, *_) = (span.image for span in example.spans if span.image)
    orders[example.route.name].append(source.index)
  first, second = (orders[route][: len(USABLE)] for route in both)
  assert set(first) == set(second) == set(USABLE)
  assert first != second


def test_several_sources_are_drawn_for_pairs_that_have_them(store):
  pool = Pool(store.split('train'), SHORT, max_sources=3)
  examples = pipeline.example_dataset(pool, TASKS['synthesis'], seed=0)
  epochs, pairs = 10, (2 + 2 + 12) * len(USABLE)
  drawn, targets = Counter(), Counter()
  for i in range(epochs * pairs):
    route, target = examples[i].route, examples[i].spans[-1].image
    drawn[route.cohort, len(route.sources)] += 1
    targets[target] += 1
    shown = [s.image for s in examples[i].spans[:-1] if s.image]
    assert {(ref.case, ref.index) for ref in shown} == {
      (target.case, target.index)
    }
  assert drawn['brain', 1] == drawn['pelvis', 1] == epochs * 2 * len(USABLE)
  brats = epochs * 12 * len(USABLE)
  for count in (1, 2, 3):
    assert abs(drawn['brats', count] / brats - 1 / 3) < 0.09  # five deviations
  assert sum(drawn.values()) == epochs * pairs
  # Every pair once an epoch: a target has three of BraTS, one of the others.
  assert set(targets.values()) == {3 * epochs, epochs}


def test_one_source_is_the_default_and_draws_nothing(store):
  default, one = (
    take(dataset(store, EVERYTHING, **changes), 4)
    for changes in ({}, {'max_sources': 1})
  )
  assert_equal(default, one)
  three = dataset(store, max_sources=3, capacity=Capacity(**THREE))
  assert rows(take(three, 8)) != rows(take(dataset(store), 8))


def test_the_number_of_sources_belongs_to_the_layout(store):
  layouts = [
    iter(dataset(store, max_sources=n, capacity=Capacity(**THREE))).layout
    for n in (1, 3)
  ]
  assert [layout['max_sources'] for layout in layouts] == [1, 3]


def test_examples_with_several_sources_fill_their_rows(store):
  batches = take(
    dataset(store, max_sources=3, capacity=Capacity(**THREE), packing_bins=8),
    40,
  )
  clean = Counter()
  for batch in batches:
    for row, ids in enumerate(batch.gen.example_ids):
      for example in range(1, ids.max() + 1):
        own = ids == example
        noised = own & (batch.noise_ids[row] > 0)
        assert noised.sum() == 4
        clean[int((own & ~noised).sum()) // 4] += 1
  assert clean.keys() == {1, 2, 3}


def test_each_source_is_dropped_by_itself(store):
  batches = take(
    dataset(
      store,
      max_sources=3,
      routes=('brats_t1+t2+flair_to_t1ce',),
      capacity=Capacity(**THREE),
      dropout=Dropout(vae=0.5),
    ),
    150,
  )
  left = Counter()
  for batch in batches:
    for row, ids in enumerate(batch.gen.example_ids):
      for example in range(1, ids.max() + 1):
        clean = (ids == example) & (batch.noise_ids[row] == 0)
        left[int(clean.sum()) // 4] += 1
  total = sum(left.values())
  for count, share in enumerate((1 / 8, 3 / 8, 3 / 8, 1 / 8)):
    assert abs(left[count] / total - share) < 0.13


def test_the_line_names_what_the_longest_example_needs(store):
  small = Capacity(und=20, gen=16, vit=12, images=4)
  with pytest.raises(ExampleTooLarge, match=r'und is 20, but .* needs 39\.'):
    dataset(store, max_sources=3, capacity=small)


@pytest.mark.parametrize('field', THREE)
def test_a_row_without_room_for_the_sources_is_refused(store, field):
  """Before the first row, although a rare example alone needs the room."""
  assert dataset(store, max_sources=3, capacity=Capacity(**THREE))
  less = THREE | {field: THREE[field] - 1}
  with pytest.raises(
    ExampleTooLarge,
    match=rf'capacity\.{field} is {less[field]}, but an example of task '
    rf"'synthesis' needs {THREE[field]}\.",
  ):
    dataset(store, max_sources=3, capacity=Capacity(**less))


def test_a_split_without_subjects_is_named(store):
  with pytest.raises(ValueError, match="no subject in split 'none'"):
    dataset(store, split='none')


@pytest.mark.parametrize(
  ('field', 'needed'), [('und', 17), ('gen', 8), ('vit', 4), ('images', 2)]
)
def test_an_example_larger_than_a_row_names_the_key(store, field, needed):
  room = {'und': 96, 'gen': 8, 'vit': 20, 'images': 2} | {field: needed - 1}
  with pytest.raises(
    ExampleTooLarge, match=rf"capacity\.{field} is .*'synthesis'"
  ):
    take(dataset(store, capacity=Capacity(**room)), 20)


def test_a_rare_task_that_fits_in_no_row_is_refused_before_the_first_row(store):
  with pytest.raises(ExampleTooLarge, match=r"capacity\.vit .*'cts'"):
    dataset(
      store,
      {'synthesis': 1.0, 'cts': 1e-9},
      capacity=Capacity(und=96, gen=8, vit=8, images=2),
    )


def test_images_of_a_batch_are_changed_as_asked_and_its_tokens_are_not(store):
  plain, noisy = (
    take(dataset(store, QUESTIONS, augment=Augment(noise=n)), 4)
    for n in (0.0, 0.2)
  )
  for before, after in zip(plain, noisy, strict=True):
    used = before.vit_visible_to > 0
    change = (after.vit_patches - before.vit_patches)[used]
    assert 0.1 < change.std() < 0.3
    assert_equal(
      after.replace(vit_patches=before.vit_patches),
      before,
    )


def test_task_ids_are_places_among_the_sorted_names_with_a_share(store):
  tasks = {'tia': 1.0, 'vlm': 0.0, 'cts': 1.0}
  batches = take(dataset(store, tasks), 8)
  ids = {
    int(i) for b in batches for i in b.task_ids[b.und.example_ids > 0].flat
  }
  assert ids == {0, 1}  # cts, tia


def test_a_source_stands_in_for_the_pairs_of_a_task(store):
  pool = Pool(store.split('val'), SHORT)

  def source(seed):
    return pipeline.example_dataset(pool, TASKS['tia'], seed=seed)

  batches = take(dataset(store, {'tia': 1.0}, sources={'tia': source}), 4)
  shown = {ref.case for batch in batches for ref in slices(batch)}
  assert shown <= cases_of(store, 'val')


def test_a_source_of_examples_of_another_task_is_refused(store):
  pool = Pool(store.split('train'), SHORT)

  def source(seed):
    return pipeline.example_dataset(pool, TASKS['mi'], seed=seed)

  with pytest.raises(ValueError, match="task 'mi' came from a source of tia"):
    dataset(store, {'tia': 1.0}, sources={'tia': source})


@pytest.mark.parametrize(
  ('task', 'message'),
  [('vlm', "'vlm' is not built from pairs"), ('vqa', "Unknown task 'vqa'")],
)
def test_a_task_without_examples_is_refused(store, task, message):
  with pytest.raises(ValueError, match=message):
    dataset(store, {task: 1.0})


def test_paper_prompts_change_words_and_no_image(store):
  room = Capacity(und=600, gen=8, vit=20, images=2)
  shown = {}
  for prompts in (SHORT, PAPER):
    batches = dataset(store, {'tia': 1.0}, capacity=room, prompts=prompts)
    shown[prompts] = {
      (ref.case, ref.modality) for b in take(batches, 8) for ref in slices(b)
    }
  assert shown[SHORT] == shown[PAPER]


def test_other_wordings_are_other_data(store):
  """`layout` is compared when a run resumes."""
  changed = dataclasses.replace(SHORT, cts=('Which one?',))
  layouts = [
    iter(dataset(store, prompts=prompts)).layout
    for prompts in (SHORT, SHORT, changed)
  ]
  assert layouts[0] == layouts[1]
  different = {k for k, v in layouts[0].items() if layouts[2][k] != v}
  assert different == {'prompts'}


@pytest.mark.parametrize('tasks', [QUESTIONS, {'synthesis': 1.0}])
def test_a_share_of_the_subjects_shows_no_other(store, tasks):
  batches = take(dataset(store, tasks, subjects=0.5), 12)
  shown = {ref.case for batch in batches for ref in slices(batch)}
  # Two of the three training subjects, which are of one dataset.
  kept = {case.id for case in some_subjects(store.split('train'), 0.5)}
  assert len(kept) == 2
  assert shown == kept
