"""Scenes are deterministic, and neighbouring views are similar."""

import itertools

import numpy as np
import pytest

from projects.small_base.scenes import solids

SEEDS = range(12)


def test_a_scene_is_the_same_every_time():
  first = solids.cut(5, 7)
  solids.cut.cache_clear()
  solids.scene.cache_clear()
  again = solids.cut(5, 7)
  np.testing.assert_array_equal(first.materials, again.materials)
  np.testing.assert_array_equal(first.grain, again.grain)


def test_scenes_of_other_seeds_differ():
  one, other = solids.cut(4, 7), solids.cut(8, 7)
  assert np.abs(one.materials - other.materials).mean() > 0.02


def test_every_kind_of_scene_is_drawn():
  assert {solids.kind_of(seed) for seed in SEEDS} == set(solids.KINDS)


@pytest.mark.parametrize('seed', SEEDS)
def test_materials_of_a_pixel_add_up_to_one(seed):
  for view in (0, 11, solids.VIEWS - 1):
    cut = solids.cut(seed, view)
    np.testing.assert_allclose(cut.materials.sum(0), 1, atol=1e-4)
    assert cut.materials.min() > -1e-5
    assert 0 <= cut.dome.min() <= cut.dome.max() < 1.001
    assert (1 - cut.materials[0]).mean() > 0.01  # something is there


@pytest.mark.parametrize('seed', SEEDS)
def test_neighbouring_views_differ_and_far_ones_more(seed):
  views = [solids.cut(seed, v).materials for v in range(solids.VIEWS)]

  def distance(step):
    return np.mean(
      [
        np.abs(a - b).mean()
        for a, b in zip(views[:-step], views[step:], strict=True)
      ]
    )

  neighbours = [np.abs(a - b).max() for a, b in itertools.pairwise(views)]
  assert min(neighbours) > 0.1
  assert distance(1) < distance(4) < distance(12)


def test_a_view_outside_the_scene_is_refused():
  with pytest.raises(ValueError, match='views 0 to 23'):
    solids.cut(0, solids.VIEWS)
