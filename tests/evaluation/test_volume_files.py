"""Volumes of the worst, median and best subject: choice, arrays, files."""

import dataclasses

import numpy as np
import pytest
from etils.epath import Path
from external_fakes import AFFINE, ROUTE, USABLE, write_store
from hypothesis import given
from hypothesis import strategies as st

from synermedgen_jax.core.modalities import Modality
from synermedgen_jax.evaluation import protocol
from synermedgen_jax.evaluation.results import Synthesised
from synermedgen_jax.evaluation.volume_files import (
  choose,
  chosen_pairs,
  collect_volumes,
  volume_arrays,
)
from synermedgen_jax.slices.grids import from_slices


@pytest.mark.parametrize(
  ('ssim', 'expected'),
  [
    ({'a': 0.5}, {'median': 'a'}),
    ({'a': 0.5, 'b': 0.4}, {'worst': 'b', 'best': 'a'}),
    (
      {'a': 0.5, 'b': 0.4, 'c': 0.6},
      {'worst': 'b', 'median': 'a', 'best': 'c'},
    ),
    (
      {'a': 0.1, 'b': 0.2, 'c': 0.3, 'd': 0.4},
      {'worst': 'a', 'median': 'b', 'best': 'd'},
    ),
    (
      {'c': 0.5, 'b': 0.5, 'a': 0.5},
      {'worst': 'a', 'median': 'b', 'best': 'c'},
    ),
  ],
)
def test_subjects_are_chosen_by_ssim(ssim, expected):
  assert choose(ssim) == expected


@given(st.dictionaries(st.text(max_size=3), st.floats(-1, 1), min_size=3))
def test_three_subjects_are_distinct_and_in_order(ssim):
  kinds = choose(ssim)
  assert list(kinds) == ['worst', 'median', 'best']
  assert len(set(kinds.values())) == 3
  values = [ssim[subject] for subject in kinds.values()]
  assert values == sorted(values)
  assert values[0] == min(ssim.values())
  assert values[2] == max(ssim.values())


@pytest.fixture
def store(tmp_path):
  return write_store(tmp_path / 'store')


def pairs_of(store, slices=0):
  return list(
    protocol.route_pairs(store.split('test'), slices=slices, routes=[ROUTE])
  )


def darker(item):
  """A synthesis that is worse for the second subject."""
  return item.truth - np.float32(0.1 + 0.3 * (item.case.id == 'brain.b2'))


def test_a_voxel_is_where_and_what_it_is_in_the_store(store):
  pair = pairs_of(store)[0]
  item = protocol.RouteCase.read(store, pair)
  arrays = volume_arrays(item, item.truth)
  assert arrays['sources'].shape == (1, *arrays['truth'].shape)
  for name in ('sources', 'synthesis', 'truth'):
    assert arrays[name].dtype == np.uint8
  np.testing.assert_array_equal(arrays['mask'], item.mask)
  assert str(arrays['subject']) == pair.case.person
  np.testing.assert_array_equal(
    arrays['windows'], [[0, 800], [-1000, 1000], [-1000, 1000]]
  )
  # Physical values, to half a level of 2000 HU.
  low, high = arrays['windows'][-1]
  hu = low + arrays['truth'] / 255.0 * (high - low)
  whole = pair.case.modalities[Modality.CT].denormalise(
    store.read_volume(pair.case.id, Modality.CT)
  )
  expected = whole[USABLE.start : USABLE.stop]
  np.testing.assert_allclose(hu, expected, atol=2000 / 255 / 2 + 0.1)
  # The same place in RAS+ mm as in the volume of all slices.
  assert arrays['affine'].dtype == np.float64
  at = arrays['affine'] @ [7, 4, 2, 1]
  np.testing.assert_allclose(at, AFFINE @ [7, 4, 2 + USABLE.start, 1])
  assert from_slices(hu)[7, 4, 2] == hu[2, 4, 7]


def test_values_beyond_the_window_are_its_ends(store):
  item = protocol.RouteCase.read(store, pairs_of(store)[0])
  synthesis = np.full(item.truth.shape, 3, np.float32)
  synthesis[0] = -1.5
  levels = volume_arrays(item, synthesis)['synthesis']
  assert (levels[0] == 0).all()
  assert (levels[1:] == 255).all()


def published(workdir):
  files = {}
  folder = workdir / 'evaluation' / 'volumes'
  for path in folder.glob('*/*.npz'):
    with np.load(path, allow_pickle=False) as arrays:
      files[str(path.relative_to(folder))] = dict(arrays)
  return files


def test_an_earlier_folder_is_replaced_as_one(store, tmp_path):
  workdir = Path(tmp_path / 'run')
  old = workdir / 'evaluation' / 'volumes' / 'other_route'
  old.mkdir(parents=True)
  (old / 'best.npz').write_bytes(b'')
  with collect_volumes(workdir) as volumes:
    scored = protocol.score_outputs(store, pairs_of(store), darker)
    result = Synthesised.gather(volumes.record(scored), {})
    assert (old / 'best.npz').exists()  # until the evaluation is complete
    volumes.publish(result.by_subject)
  found = published(workdir)
  assert set(found) == {f'{ROUTE}/worst.npz', f'{ROUTE}/best.npz'}
  worst, best = found[f'{ROUTE}/worst.npz'], found[f'{ROUTE}/best.npz']
  assert str(worst['subject']) == 'brain.b2'
  assert worst['ssim'] == result.by_subject[ROUTE]['brain.b2']['ssim']
  assert worst['ssim'] < best['ssim']
  assert set(worst) == {
    *('sources', 'synthesis', 'truth', 'mask'),
    *('affine', 'subject', 'ssim', 'windows'),
  }
  assert [p.name for p in (workdir / 'evaluation').iterdir()] == ['volumes']


def test_an_interrupted_evaluation_leaves_the_earlier_volumes(store, tmp_path):
  workdir = Path(tmp_path / 'run')
  old = workdir / 'evaluation' / 'volumes' / ROUTE
  old.mkdir(parents=True)
  (old / 'best.npz').write_bytes(b'old')
  item = protocol.RouteCase.read(store, pairs_of(store)[0])

  def interrupted():
    with collect_volumes(workdir) as volumes:
      volumes.add(item, item.truth)
      assert list(workdir.glob('evaluation/.volumes.partial/cases/*.npz'))
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    interrupted()
  assert [p.name for p in (workdir / 'evaluation').iterdir()] == ['volumes']
  assert (old / 'best.npz').read_bytes() == b'old'


def sessions(store):
  """Both test cases as sessions of one patient."""
  pairs = pairs_of(store)
  cases = [dataclasses.replace(pair.case, patient='p') for pair in pairs]
  return [
    dataclasses.replace(pair, case=case)
    for pair, case in zip(pairs, cases, strict=True)
  ]


def test_a_subject_with_several_cases_shows_the_first(store, tmp_path):
  workdir = Path(tmp_path / 'run')
  pairs = sessions(store)
  with collect_volumes(workdir) as volumes:
    scored = protocol.score_outputs(store, pairs, darker)
    result = Synthesised.gather(volumes.record(scored), {})
    volumes.publish(result.by_subject)
  assert list(published(workdir)) == [f'{ROUTE}/median.npz']
  (median,) = published(workdir).values()
  assert str(median['subject']) == 'brain.p'
  first = protocol.RouteCase.read(store, pairs[0])
  np.testing.assert_array_equal(
    median['synthesis'], volume_arrays(first, darker(first))['synthesis']
  )
  # The SSIM is that of the subject, the mean of both cases.
  assert median['ssim'] == result.by_subject[ROUTE]['brain.p']['ssim']


def test_pairs_of_few_slices_are_chosen_with_all_slices(store):
  pairs = pairs_of(store, slices=2)
  ssim = {'brain.b1': {'ssim': 0.4}, 'brain.b2': {'ssim': 0.3}}
  chosen = chosen_pairs(pairs, {ROUTE: ssim})
  assert [pair.case.id for pair in chosen] == ['brain.b1', 'brain.b2']
  for pair in chosen:
    np.testing.assert_array_equal(pair.indices, list(USABLE))


def test_only_the_first_case_of_a_chosen_subject_is_synthesised_again(store):
  pairs = sessions(store)
  chosen = chosen_pairs(pairs, {ROUTE: {'brain.p': {'ssim': 0.4}}})
  assert [pair.case.id for pair in chosen] == [pairs[0].case.id]
  other = [
    protocol.RoutePair(p.route, dataclasses.replace(p.case, patient=n), [1])
    for n, p in zip('abcd', [pairs[0]] * 4, strict=True)
  ]
  scores = {f'brain.{n}': {'ssim': s} for s, n in enumerate('abcd')}
  chosen = chosen_pairs(other, {ROUTE: scores})
  assert [pair.case.person[-1] for pair in chosen] == ['a', 'b', 'd']
