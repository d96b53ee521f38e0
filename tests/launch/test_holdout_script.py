"""launch/holdout.sh: the stores that it prepares and what it evaluates.

Python writes down how it is called, so no store or result is there.
"""

import pytest
from launch_fakes import Stage, assert_refused

from synermedgen_jax.core.choices import SHIFTS

SCRIPT = 'launch/holdout.sh'


@pytest.fixture
def box(tmp_path):
  """An environment that is set up, with a fake Python in it and two runs."""
  stage = Stage(tmp_path)
  (stage.root / 'requirements.txt').write_text('jax\n')
  stage.fake('../repository/.venv/bin/python')
  stamp = stage.root / '.venv' / 'requirements.txt.installed'
  stamp.write_text('jax\n' * 2)
  for name, config in (
    ('detail', '{"stage": "ucg"}'),
    ('unet', '{"scope": ""}'),
  ):
    (stage.root / name).mkdir()
    (stage.root / name / 'config.json').write_text(config)
  return stage


def words(box, module):
  """The words of every call of a module."""
  return [call.split() for call in box.calls(f'synermedgen_jax.{module} ')]


def run(box, *arguments, **environment):
  done = box.run(SCRIPT, *arguments, **environment)
  assert done.returncode == 0, done.stderr
  return done


def test_every_shift_is_a_holdout_of_new_phantoms(box):
  run(box, 'detail')
  prepared = words(box, 'prepare')
  assert [w for p in prepared for w in p if w.startswith('--shift=')] == [
    f'--shift={name}' for name in SHIFTS
  ]
  assert {
    *('--dataset=phantom', '--holdout', '--like=detail', '--most_offset=0'),
    '--root=runs/holdout/data/none/phantoms',
    '--store=runs/holdout/data/none/store',
  } <= set(prepared[0])


def test_every_system_is_evaluated_on_every_holdout(box):
  run(box, '--run=out', 'ours=detail', 'unet', SHIFTS='none mr_3t', SLICES='4')
  evaluated = words(box, 'evaluate')
  assert [w[3] for w in evaluated] == ['--workdir=detail', '--workdir=unet'] * 2
  for word in ('--split=holdout', '--slices=4'):
    assert all(word in w for w in evaluated)
  assert [w[-1] for w in evaluated] == [
    *('--output=out/none/ours', '--output=out/none/unet'),
    *('--output=out/mr_3t/ours', '--output=out/mr_3t/unet'),
  ]
  assert '--store=out/data/mr_3t/store' in evaluated[2]
  # A system of the arena answers no questions.
  asked = ['--questions=256' in w for w in evaluated]
  assert asked == [True, False, True, False]
  ((*_, runs, systems),) = words(box, 'holdout')
  assert (runs, systems) == ('--runs=out', '--systems=ours,unet')


def test_a_second_run_evaluates_nothing_again(box):
  run(box, 'detail', SHIFTS='none')
  run(box, 'detail', SHIFTS='none')
  assert len(words(box, 'evaluate')) == 1
  assert len(words(box, 'holdout')) == 2


def test_a_run_that_was_trained_on_is_evaluated_again(box):
  run(box, 'detail', SHIFTS='none')
  (box.root / 'detail' / 'metrics.jsonl').touch()
  run(box, 'detail', SHIFTS='none')
  assert len(words(box, 'evaluate')) == 2


def test_an_evaluation_that_failed_ends_the_script_and_is_repeated(box):
  (box.fakes / 'answers' / '--workdir=detail').write_text('1\n0\n')
  assert box.run(SCRIPT, 'detail', SHIFTS='none').returncode == 1
  assert not words(box, 'holdout')
  run(box, 'detail', SHIFTS='none')
  assert len(words(box, 'evaluate')) == 2


def test_results_of_other_options_are_removed_before_an_evaluation(box):
  results = box.root / 'runs/holdout/none/detail/evaluation/subjects.json'
  run(box, 'detail', SHIFTS='none')
  results.parent.mkdir()
  results.touch()
  run(box, 'detail', SHIFTS='none')
  assert results.exists()
  run(box, 'detail', SHIFTS='none', SLICES='3')
  assert not results.exists()


def test_public_data_take_the_place_of_phantoms(box):
  run(box, '--data=synthrad2025=/data/s', '--data=myops=/data/m', 'detail')
  prepared = words(box, 'prepare')
  assert [
    {w for w in p if w.startswith(('--dataset', '--root'))} for p in prepared
  ] == [
    {'--dataset=synthrad2025', '--root=/data/s'},
    {'--dataset=myops', '--root=/data/m'},
  ]
  assert all({'--holdout', '--skip_bad'} <= set(p) for p in prepared)
  # The offset of real volumes is searched.
  assert not [w for p in prepared for w in p if 'offset' in w]
  assert len(words(box, 'evaluate')) == 2


def test_a_system_without_a_route_of_the_data_is_left_out(box):
  refusal = 'Error: unet: has no route of the store.\n'
  (box.fakes / 'answers' / '--workdir=unet').write_text(f'1 {refusal}')
  done = run(box, '--data=myops=/data/m', 'detail', 'unet')
  assert done.stderr.startswith(f'{refusal}unet is not measured on myops.\n')
  assert words(box, 'holdout')


@pytest.mark.parametrize('answer', ['1', '137 Error: of a thread', '139'])
def test_an_evaluation_that_crashes_ends_the_script(box, answer):
  (box.fakes / 'answers' / '--workdir=unet').write_text(f'{answer}\n')
  done = box.run(SCRIPT, '--data=myops=/data/m', 'unet', 'detail')
  assert done.returncode == 1
  status = answer.split()[0]
  assert done.stderr.splitlines()[-1].startswith(
    f'Error: unet: its evaluation on myops crashed (status {status}); '
  )
  assert not words(box, 'holdout')


def test_a_short_run_has_few_slices_and_the_pair_of_a_difference(box):
  run(box, '--short', 'detail')
  prepared, evaluated = words(box, 'prepare'), words(box, 'evaluate')
  assert len(prepared) == len(evaluated) == 2
  assert '--subjects=1' in prepared[0]
  assert {'--slices=2', '--questions=4'} <= set(evaluated[0])


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ((), 'name the workdir of a run'),
    (('nowhere',), 'nowhere: no such folder'),
    (('detail', 'detail'), 'two systems are named detail'),
    (('detail', '--subjects=3'), 'unknown option --subjects=3'),
    (('--run=', 'detail'), '--run: name a directory'),
    (('a b=detail',), 'name the system with SYSTEM=WORKDIR'),
  ],
)
def test_arguments_that_do_not_fit_are_named(box, arguments, message):
  assert_refused(box.run(SCRIPT, *arguments), message)
  assert not box.calls()
