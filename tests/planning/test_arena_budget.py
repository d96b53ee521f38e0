"""The budget of an arena, and the trainings that spend it."""

import itertools
from pathlib import Path

import pytest
from store_fakes import write_store

from synermedgen_jax.planning.arena import (
  ArenaError,
  Budget,
  parse_systems,
  recipe,
  trainings,
)
from synermedgen_jax.slices.store import SliceStore


def test_a_budget_has_a_kind_and_a_number():
  assert Budget.parse('images:24000') == Budget('images', 24_000)
  assert Budget.parse('operations:1.6e13') == Budget('operations', 1.6e13)


@pytest.mark.parametrize(
  'text', ['', 'images', 'images:', 'hours:3', 'images:-1', 'images:inf']
)
def test_any_other_budget_is_refused(text):
  with pytest.raises(ValueError, match='expected images:NUMBER or operations'):
    Budget.parse(text)


def test_a_budget_is_written_as_it_is_read():
  assert str(Budget('images', 6000)) == 'images:6000'
  assert str(Budget('images', 2_000_000)) == 'images:2000000'
  for amount, text in ((1.6e13, '1.6e13'), (2e11, '2e11'), (500, '500')):
    budget = Budget('operations', amount)
    assert str(budget) == f'operations:{text}'
    assert Budget.parse(str(budget)) == budget


def test_a_system_has_one_seed_unless_it_says_more():
  assert parse_systems(['unet:3', 'synermedgen']) == {
    'unet': 3,
    'synermedgen': 1,
  }
  with pytest.raises(ArenaError, match=r'unknown gan; expected .*pix2pix'):
    parse_systems(['unet', 'gan:2'])
  with pytest.raises(ArenaError, match='unet is named twice'):
    parse_systems(['unet:3', 'unet'])
  with pytest.raises(ArenaError, match='--systems: is empty'):
    parse_systems([])


@pytest.mark.parametrize('text', ['unet:', 'unet:0', 'unet:two', 'unet:-1'])
def test_a_number_of_seeds_is_checked(text):
  with pytest.raises(ArenaError, match=f'{text}: expected a number of seeds'):
    parse_systems([text])


@pytest.mark.parametrize('without', ['', 'val'])
def test_a_store_without_validation_subjects_switches_validation_off(
  tmp_path, without
):
  write_store(tmp_path / 'store', without=without)
  store = SliceStore.open(tmp_path / 'store')
  (training,) = trainings(
    'unet', store, tmp_path, Budget('images', 16), stages=tmp_path, seed=0
  )
  assert ('--config.val_every=0' in training.flags) == bool(without)


def test_the_first_stage_is_shared_by_budgets_and_not_by_seeds(
  store_path, tmp_path
):
  store = SliceStore.open(store_path)

  def stage1(budget, seed):
    first, *_ = trainings(
      'synermedgen',
      store,
      tmp_path / str(budget) / str(seed),
      budget,
      stages=tmp_path / 'stages' / str(seed),
      seed=seed,
    )
    return first

  images, operations = Budget('images', 1000), Budget('operations', 2e13)
  assert stage1(images, 0) == stage1(operations, 0)
  assert stage1(images, 0).workdir == tmp_path / 'stages' / '0' / 'stage1'
  assert stage1(images, 1).workdir == tmp_path / 'stages' / '1' / 'stage1'


@pytest.mark.parametrize(
  'line', ['max_sources = 3', "routes = ('brats_t1+t2_to_flair',)"]
)
def test_configs_with_several_sources_are_refused(store_path, tmp_path, line):
  text = Path('configs/small/unet.py').read_text()
  (tmp_path / 'configs').mkdir()
  path = tmp_path / 'configs' / 'unet.py'
  added = f'  with config.unlocked():\n    config.{line}\n  return config'
  path.write_text(text.replace('  return config', added))
  with pytest.raises(ArenaError, match=r'unet\.py: an arena compares systems'):
    trainings(
      'unet',
      SliceStore.open(store_path),
      tmp_path,
      Budget('images', 16),
      stages=tmp_path,
      seed=0,
      configs=str(path.parent),
    )


@pytest.mark.parametrize('kind', ['images', 'operations'])
def test_the_stages_of_synthesis_share_the_budget(store_path, tmp_path, kind):
  budget = Budget(kind, {'images': 6000, 'operations': 1.6e13}[kind])
  stages = trainings(
    'synermedgen',
    SliceStore.open(store_path),
    tmp_path / 'synermedgen',
    budget,
    stages=tmp_path / 'stages',
    seed=0,
  )
  assert [s.workdir.relative_to(tmp_path).as_posix() for s in stages] == [
    *('stages/stage1', 'synermedgen/stage2_detail', 'synermedgen')
  ]
  assert [s.understanding for s in stages] == [True, False, False]
  assert stages[0].images == 0
  assert {n.split('/')[0] for n in stages[2].trained} == {'detail'}
  counted = {'images': lambda s: s.images, 'operations': lambda s: s.operations}
  used = sum(map(counted[kind], stages[1:]))
  one_step = counted[kind](stages[2]) / stages[2].steps
  assert 0 <= budget.amount - used < one_step
  eighth = counted[kind](stages[1])
  assert 0 <= budget.amount / 8 - eighth < eighth / stages[1].steps
  (stage_one,) = [line for line in recipe(stages) if 'Stage I' in line]
  assert f'{stages[0].operations / 1e12:.1f} TFLOP' in stage_one


@pytest.mark.parametrize('kind', ['images', 'operations'])
def test_a_variant_is_sized_like_our_own_model(store_path, tmp_path, kind):
  """Stage I is the same, beside the budget, which Stage II gets."""
  budget = Budget(kind, {'images': 1000, 'operations': 2e13}[kind])
  ours, dense = (
    trainings(
      name,
      SliceStore.open(store_path),
      tmp_path / name,
      budget,
      stages=tmp_path / 'stages',
      seed=0,
    )
    for name in ('without_detail', 'as_janusflow')
  )
  assert ours[1].workdir == tmp_path / 'without_detail'
  assert dense[0] == ours[0]
  first, last = dense
  assert last.overrides['init_from'] == str(first.workdir)
  if kind == 'images':
    assert (last.steps, last.images) == (125, 1000)  # 8 pairs a step
    assert last.steps == ours[1].steps
  else:
    left = budget.amount - last.operations
    assert 0 <= left < last.operations / last.steps
  # One expert instead of two, and as many trained parameters.
  assert last.used < ours[1].used
  sizes = [sum(t.trained.values()) for t in (last, ours[1])]
  assert sizes[0] == sizes[1] > 0


def test_codes_need_a_quantiser_which_the_budget_pays(store_path, tmp_path):
  """Stage I, the quantiser and Stage II start from one another."""
  budget = Budget('operations', 3e13)
  store = SliceStore.open(store_path)
  stages = trainings(
    'as_januspro',
    store,
    tmp_path / 'as_januspro',
    budget,
    stages=tmp_path / 'stages',
    seed=0,
  )
  assert [s.workdir.relative_to(tmp_path).as_posix() for s in stages] == [
    *('stages/stage1', 'stages/quantiser', 'as_januspro')
  ]
  for earlier, later in itertools.pairwise(stages):
    assert later.overrides['init_from'] == str(earlier.workdir)
  assert [s.images for s in stages[:2]] == [0, 0]
  used = sum(stage.operations for stage in stages[1:])
  last = stages[-1]
  assert 0 <= budget.amount - used < last.operations / last.steps
  assert last.config.endswith('as_januspro.py')


def test_a_budget_without_a_last_stage_is_refused(store_path, tmp_path):
  with pytest.raises(
    ArenaError,
    match=r'stage2_detail needs .* operations for its first step',
  ):
    trainings(
      'synermedgen',
      SliceStore.open(store_path),
      tmp_path / 'ours',
      Budget('operations', 2e10),
      stages=tmp_path / 'stages',
      seed=0,
    )
