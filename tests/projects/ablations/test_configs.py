"""Every arm's config can run and differs from its parent as documented."""

import pkgutil
from pathlib import Path

import nano
import pytest

from projects.ablations import configs, plan
from projects.ablations.equal_compute import step_operations, steps_for
from synermedgen_jax.evaluation.lines import comparison_lines
from synermedgen_jax.reporting.study import read_study
from synermedgen_jax.training.build import build

NAMES = sorted(module.name for module in pkgutil.iter_modules(configs.__path__))
STAGE1 = [name for name in NAMES if name.startswith('stage1')]


def config(name):
  return nano.config_file(f'{configs.__name__}.{name}')


def rates(config):
  """Multiplier by parameter, of those that train."""
  config.init_from = ''
  scales = build(config, data=False).scales
  return {name: scale for name, scale in scales.items() if scale}


def trained(config):
  """The parameters that train."""
  return rates(config).keys()


@pytest.mark.parametrize('name', NAMES)
def test_the_config_passes_the_checks_of_training(name):
  assert trained(config(name))


def differing(name, parent):
  ours, theirs = config(name).to_dict(), config(parent).to_dict()
  assert ours.keys() == theirs.keys()
  return {key for key in ours if ours[key] != theirs[key]}


@pytest.mark.parametrize('task', ['cts', 'mi', 'tia'])
def test_one_task_is_left_out_and_nothing_else_changes(task):
  name = f'stage1_no_{task}'
  changes = {'tasks', 'capacity'} if task == 'tia' else {'tasks'}
  assert differing(name, 'stage1') == changes
  before, after = config('stage1').tasks, config(name).tasks
  for other, share in before.items():
    assert after[other] == (0 if other == task else share)


def test_random_negatives_are_those_of_a_window_longer_than_any_volume():
  assert differing('stage1_random', 'stage1') == {'neighbours'}
  assert config('stage1_random').neighbours > 10_000


def test_ordinary_questions_take_the_place_of_all_three_tasks():
  assert differing('stage1_vqa', 'stage1') == {'tasks'}
  assert config('stage1_vqa').tasks.to_dict() == {'vlm': 1.0}


def test_und_is_frozen_in_the_reference_and_trains_in_its_arm():
  assert differing('stage2_und_trained', 'stage2') == {'trainable'}
  frozen, more = (trained(config(n)) for n in ('stage2', 'stage2_und_trained'))
  assert not any('und' in name or 'connector' in name for name in frozen)
  assert frozen < more
  added = {name.split('/')[0] for name in more - frozen}
  assert {'mot', 'connector', 'vit'} <= added
  assert 'autoencoder' not in added


@pytest.mark.parametrize(
  ('name', 'stage', 'part'),
  [
    (
      'projects.ablations.configs.stage2_und_trained',
      'stage1',
      'mot/layers/und',
    ),
    ('projects.ablations.configs.stage2_und_trained', 'stage1', 'vit'),
    ('configs.small.joint', 'stage1', 'mot/layers/und'),
    ('configs.small.joint', 'stage1', 'vit'),
    ('configs.small.joint', 'stage2', 'mot/layers/gen'),
    ('configs.small.joint', 'stage2', 'vae2llm'),
  ],
)
def test_small_trains_each_part_at_the_rate_of_its_own_stage(name, stage, part):
  def rates_of_part(name):
    config = nano.config_file(name)
    of_part = {v for k, v in rates(config).items() if k.startswith(part + '/')}
    return [config.learning_rate * scale for scale in of_part]

  expected = rates_of_part(f'configs.small.{stage}')
  assert rates_of_part(name) == pytest.approx(expected, rel=0.03)
  assert len(expected) == 1


@pytest.mark.parametrize('name', STAGE1)
def test_stage_1_sets_the_sampling_of_slices(name):
  assert config(name).sampling == config('stage2').sampling


def test_gen_is_untouched_by_stage_1():
  for name in STAGE1:
    assert not any('gen' in part for part in trained(config(name)))


def operations(name):
  values = config(name)
  values.init_from = ''
  return step_operations(values)


def test_a_step_costs_the_same_for_all_tasks_of_stage_1():
  assert operations('stage1_vqa') == operations('stage1_random')
  assert operations('stage1_no_mi') == operations('stage1')


def test_training_und_along_costs_more():
  assert operations('stage2_und_trained') > operations('stage2') > 0


def test_steps_are_the_nearest_number():
  assert steps_for(100.0, 10.0) == 10
  assert steps_for(100.0, 31.0) == 3
  assert steps_for(1.0, 31.0) == 1


def test_the_study_has_the_arms_of_the_plan():
  study = read_study(Path(configs.__file__).parents[1] / 'study.json')
  assert study.reference in plan.ARMS
  titles = {name: arm.title for name, arm in study.arms.items()}
  assert titles == {name: arm.title for name, arm in plan.ARMS.items()}


def test_every_arm_has_its_configs():
  for arm in plan.ARMS.values():
    assert {arm.first, arm.second} - {''} <= {*NAMES}
  for regime in plan.REGIMES.values():
    assert regime.stage2 in NAMES


@pytest.mark.parametrize('regime', [*plan.REGIMES])
def test_a_regime_changes_keys_that_its_configs_have(regime):
  changed = config(plan.REGIMES[regime].stage2)
  changed.update_from_flattened_dict(dict(plan.REGIMES[regime].train))
  sampling = {
    f'sampling.{key}': value
    for key, value in plan.REGIMES[regime].sampling.items()
  }
  changed.update_from_flattened_dict(sampling)
  assert trained(changed)


def test_lines_of_routes_add_up():
  routes = {line.name: set(line.routes) for line in comparison_lines()}
  assert len(routes['ssim_22']) == 22
  assert routes['ssim_10'] | routes['ssim_12'] == routes['ssim_22']
  assert (len(routes['ssim_10']), len(routes['ssim_12'])) == (10, 12)
