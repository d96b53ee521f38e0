"""Slabs: which slices they have, and the examples that show them."""

from hypothesis import given
from hypothesis import strategies as st
from task_fakes import build, case_of, pairs, seeds, texts

from synermedgen_jax.core.modalities import ROUTES
from synermedgen_jax.tasks import slabs, synthesis
from synermedgen_jax.tasks.example import SliceRef
from synermedgen_jax.tasks.pairs import Pair

sizes = st.integers(1, 9)


@given(st.integers(0, 40), st.integers(1, 30), st.data(), sizes)
def test_a_slab_lies_in_the_volume_around_its_slice(start, count, data, size):
  usable = range(start, start + count)
  index = data.draw(st.sampled_from(usable))
  slab = slabs.slab_around(index, usable, size)
  assert index in slab
  assert len(slab) == min(size, count)
  assert set(slab) <= set(usable)


def test_a_slice_is_in_the_middle_of_its_slab_unless_near_an_end():
  usable = range(10, 20)
  assert slabs.slab_around(15, usable, 5) == range(13, 18)
  assert slabs.slab_around(15, usable, 4) == range(13, 17)
  assert slabs.slab_around(10, usable, 5) == range(10, 15)
  assert slabs.slab_around(19, usable, 5) == range(15, 20)


@given(st.integers(1, 60), sizes)
def test_slabs_of_one_size_cover_the_volume(count, size):
  cover = slabs.cover(count, size)
  assert {i for slab in cover for i in slab} == set(range(count))
  assert {len(slab) for slab in cover} == {min(size, count)}
  assert len({slab.start for slab in cover}) == len(cover)


def test_neighbouring_slabs_share_half_of_their_slices():
  starts = [slab.start for slab in slabs.cover(11, 4)]
  assert starts == [0, 2, 4, 6, 7]
  assert [slab.start for slab in slabs.cover(9, 3)] == [0, 2, 4, 6]
  assert [slab.start for slab in slabs.cover(3, 1)] == [0, 1, 2]
  assert slabs.cover(0, 4) == []


def test_an_example_of_a_slab_repeats_its_images_around_the_text():
  route = ROUTES[0]
  example = build(synthesis, Pair(case_of(route), route, 20), 0, slab=3)
  assert [(s.kind, s.mode) for s in example.spans] == [
    *[('vae_image', 'full'), ('vit_image', 'full')] * 3,
    ('text', 'causal'),
    *[('vae_image', 'noise')] * 3,
  ]
  name = case_of(route).id
  sources = [SliceRef(name, route.source, i) for i in (19, 20, 21)]
  targets = [SliceRef(name, route.target, i) for i in (19, 20, 21)]
  images = [s.image for s in example.spans]
  assert images[0:6:2] == images[1:6:2] == sources
  assert images[7:] == targets
  offsets = [s.offset for s in example.spans]
  assert offsets == [-1, None, 0, None, 1, None, None, -1, 0, 1]


def test_offsets_count_from_the_middle_of_the_slab_at_an_end_too():
  route = ROUTES[0]
  pair = Pair(case_of(route, 10, 30), route, 10)
  example = build(synthesis, pair, 0, slab=4)
  offsets = [s.offset for s in example.spans if s.mode == 'noise']
  assert offsets == [-2, -1, 0, 1]


@given(pairs(), seeds)
def test_a_slab_changes_no_draw(pair, seed):
  alone, slab = (build(synthesis, pair, seed, slab=n) for n in (1, 3))
  assert texts(alone) == texts(slab)
  assert all(span.offset is None for span in alone.spans)
