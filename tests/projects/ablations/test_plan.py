"""The plan of the ablations, its jobs, and the rule that decides its claims."""

import dataclasses
import signal
import time

import commands
import pytest
from commands import assert_refused

from projects.ablations import cells, plan
from projects.ablations.jobs import Job, JobError, _Pace, run_jobs
from projects.ablations.results import Decision
from synermedgen_jax.core.modalities import ROUTES, route_named
from synermedgen_jax.evaluation.comparison import Estimate
from synermedgen_jax.evaluation.lines import comparison_lines


@pytest.fixture
def settings(tmp_path, monkeypatch):
  costs = {'stage1': 40.0, 'stage2': 10.0, 'joint': 50.0}
  monkeypatch.setattr(
    cells, 'operations', lambda name, model: costs.get(name, 40.0)
  )
  return cells.Settings(
    root=tmp_path / 'runs',
    store=tmp_path / 'store',
    phantoms=tmp_path / 'phantoms',
    subjects=40,
    stage1=600,
    stage2=500,
    slices=3,
    questions=8,
  )


def jobs_of(settings, **regimes):
  jobs = cells.plan_jobs(settings, regimes, ['0'])
  return {job.name: job for job in jobs}


def value_of(job, key):
  (value,) = (
    a.partition('=')[2] for a in job.arguments if a.startswith(f'--{key}=')
  )
  return value


def test_six_routes_are_held_out_and_their_modalities_are_not():
  assert len(set(plan.HELD_OUT)) == 6
  assert {*plan.HELD_OUT, *plan.TRAINED} == {r.name for r in ROUTES}
  trained = [route_named(name) for name in plan.TRAINED]
  for route in map(route_named, plan.HELD_OUT):
    assert any(route.source == other.source for other in trained)
    assert any(route.target == other.target for other in trained)
    assert route.region in {other.region for other in trained}


def test_every_claim_compares_arms_that_its_regimes_have():
  lines = {line.name for line in comparison_lines()}
  for claim in plan.CLAIMS:
    assert claim.line in lines
    assert claim.least > 0
    for regime in claim.regimes:
      arms = {*plan.REGIMES[regime].arms, 'copy_source'}
      assert {claim.better, claim.worse} <= arms


def test_every_arm_and_regime_is_planned():
  tried = {arm for regime in plan.REGIMES.values() for arm in regime.arms}
  assert tried == plan.ARMS.keys()


def test_arms_share_their_first_stage(settings):
  jobs = jobs_of(settings, dropout=('full', 'stage1'), pairs_2=('full', 'only'))
  first = [name for name in jobs if 'stage1' in name and 'train' in name]
  assert first == ['train/0/stage1']
  for regime in ('dropout', 'pairs_2'):
    job = jobs[f'train/0/{regime}/full']
    assert job.needs == ('train/0/stage1',)
    start = value_of(jobs['train/0/stage1'], 'workdir')
    assert value_of(job, 'config.init_from') == start
  alone = jobs['train/0/pairs_2/only']
  assert value_of(alone, 'config.init_from') == str(settings.root / 'desk')
  assert value_of(alone, 'config.subjects') == '0.02'
  assert value_of(alone, 'config.steps') == '500'


def test_equal_operations_are_those_of_both_stages(settings):
  jobs = jobs_of(settings, dropout=('full', 'only_operations', 'joint'))
  full = [jobs['train/0/stage1'], jobs['train/0/dropout/full']]
  budget = sum(job.operations for job in full)
  assert budget == 600 * 40 + 500 * 10
  for arm, steps in (('only_operations', 2900), ('joint', 580)):
    job = jobs[f'train/0/dropout/{arm}']
    assert job.steps == steps
    assert job.operations == budget


def test_equal_operations_are_those_of_the_stage_2_of_the_regime(settings):
  jobs = jobs_of(settings, und_trained=('full', 'only_operations', 'joint'))
  full = [jobs['train/0/stage1'], jobs['train/0/und_trained/full']]
  budget = sum(job.operations for job in full)
  assert budget == 600 * 40 + 500 * 40  # `und_trained` costs 40 a step
  for arm, steps in (('only_operations', 1100), ('joint', 880)):
    assert jobs[f'train/0/und_trained/{arm}'].steps == steps


def test_guidance_samples_the_trainings_of_dropout(settings):
  jobs = jobs_of(settings, dropout=('full',), guided=('full',))
  trained = {n for n in jobs if n.startswith('train')}
  assert trained == {'train/0/stage1', 'train/0/dropout/full'}
  guided = jobs['evaluate/0/guided/full']
  assert guided.needs == ('train/0/dropout/full',)
  assert value_of(guided, 'config.sampling.points') == '10'
  results = value_of(guided, 'workdir')
  assert results == str(settings.root / 'guided' / '0' / 'full')
  start = value_of(jobs['train/0/dropout/full'], 'workdir')
  assert value_of(guided, 'config.init_from') == start


def test_zero_shot_measures_stage_1_without_training_stage_2(settings):
  jobs = jobs_of(settings, dropout=('base', 'stage1'))
  assert [n for n in jobs if n.startswith('train')] == ['train/0/stage1']
  base = jobs['evaluate/0/dropout/base']
  assert value_of(base, 'config.init_from') == str(settings.root / 'desk')


def test_held_out_routes_are_scored_and_not_trained(settings):
  jobs = jobs_of(settings, held_out=('full',))
  routes = value_of(jobs['train/0/held_out/full'], 'config.routes')
  assert routes == repr(plan.TRAINED)
  scored = value_of(jobs['evaluate/0/held_out/full'], 'routes').split(',')
  assert tuple(scored) == plan.HELD_OUT


def test_every_job_comes_after_what_it_needs(settings):
  regimes = {name: regime.arms for name, regime in plan.REGIMES.items()}
  jobs = cells.plan_jobs(settings, regimes, ['0', '1'])
  seen = set()
  for job in jobs:
    assert seen >= {*job.needs}
    seen.add(job.name)
  assert len(seen) == len(jobs)


CLAIM = dataclasses.replace(plan.CLAIMS[0], least=1.0)


@pytest.mark.parametrize(
  ('low', 'high', 'seeds', 'verdict'),
  [
    (0.2, 3.0, (1.0, 1.5, 2.0), 'borne out'),
    (0.2, 3.0, (-0.1, 1.5, 2.0), 'not decided'),
    (-0.2, 3.0, (1.0, 1.5, 2.0), 'not decided'),
    (-0.5, 0.9, (-0.1, 0.2, 0.5), 'refuted'),
    (0.1, 0.9, (0.2, 0.3, 0.5), 'refuted'),  # present, and too small
    (-3.0, -1.0, (-2.0, -2.0, -2.0), 'refuted'),
    (-0.5, 0.9, (-0.1, 0.2, 1.5), 'not decided'),
    (0.2, 3.0, (1.0, 1.5), 'not decided'),  # two seeds
    (-3.0, -1.0, (-2.0, -2.0), 'not decided'),
  ],
)
def test_the_rule_of_the_plan(low, high, seeds, verdict):
  difference = Estimate((low + high) / 2, low, high)
  assert Decision(CLAIM, 'dropout', difference, seeds=seeds).verdict == verdict


def test_what_was_not_run_is_not_decided():
  assert Decision(CLAIM, 'dropout').verdict == 'not run'


def script(tmp_path, name, text):
  module = tmp_path / f'{name}.py'
  module.write_text(text)
  return name


def test_jobs_run_in_order_once_and_a_failure_stops_the_rest(
  tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  log = tmp_path / 'order.txt'
  script(
    tmp_path,
    'noting',
    f'import sys\nopen({str(log)!r}, "a").write(sys.argv[1] + "\\n")\n'
    'if sys.argv[1] == "bad":\n  sys.exit("Error: bad input.")\n',
  )
  one = Job('one', 'noting', ('1',))
  two = Job('a/two', 'noting', ('2',), ('one',))
  run_jobs([one, two], tmp_path / 'runs', 2)
  assert log.read_text().split() == ['1', '2']
  run_jobs([one, two], tmp_path / 'runs', 2)
  assert log.read_text().split() == ['1', '2']
  changed = dataclasses.replace(two, arguments=('3',))
  run_jobs([one, changed], tmp_path / 'runs', 1)
  assert log.read_text().split() == ['1', '2', '3']
  bad = Job('bad', 'noting', ('bad',))
  after = Job('after', 'noting', ('4',), ('bad',))
  with pytest.raises(JobError, match=r'bad failed; .*: Error: bad input\.'):
    run_jobs([one, bad, after], tmp_path / 'runs', 1)
  assert log.read_text().split() == ['1', '2', '3', 'bad']


RUN = 'projects.ablations.run'


def test_the_costs_are_announced_and_nothing_starts(tmp_path, monkeypatch):
  costs = {'stage1': 40e9, 'stage2': 10e9}
  monkeypatch.setattr(cells, 'operations', lambda name, model: costs[name])
  code, out, _ = commands.run(
    RUN,
    f'--output={tmp_path}/runs',
    '--seeds=0',
    '--regimes=pairs_2',
    '--stage1_steps=600',
    '--stage2_steps=500',
    '--at_a_time=2',
    '--gflops=1',
    '--evaluation_minutes=30',
    '--announce',
  )
  assert code == 0
  head, *rows, total = out.splitlines()
  assert head.split() == ['training', 'steps', 'TFLOP', 'minutes']
  assert [row.split()[:2] for row in rows] == [
    ['train/0/stage1', '600'],
    ['train/0/pairs_2/full', '500'],
    ['train/0/pairs_2/only', '500'],
  ]
  # 600 x 40 + 2 x 500 x 10 GFLOP at one a second, two evaluations of half an
  # hour, two processes.
  hours = (34_000 / 3600 + 1) / 2
  assert total.startswith('3 trainings with 34 TFLOP, 2 evaluations: about ')
  assert f' {hours:.1f} hours, 2 at a time' in total
  assert not (tmp_path / 'runs').exists()


def test_full_tries_every_arm_in_every_regime(tmp_path, settings):
  # `settings` replaces the operations of a step.
  code, out, _ = commands.run(
    RUN, f'--output={tmp_path}/runs', '--seeds=0', '--full', '--announce'
  )
  assert code == 0
  # Joint training cannot have fewer pairs in Stage II than in Stage I.
  cells = len(plan.ARMS) * len(plan.REGIMES) - 3
  assert f' {cells} evaluations' in out


def test_an_unknown_regime_is_refused(tmp_path):
  result = commands.run(RUN, f'--output={tmp_path}', '--regimes=pairs_3')
  assert_refused(result, '--regimes: unknown pairs_3; expected some of dropout')


@pytest.fixture
def noted(tmp_path, monkeypatch):
  """Runs jobs of a module that notes its first argument; returns the notes."""
  monkeypatch.chdir(tmp_path)
  notes = tmp_path / 'notes.txt'
  script(
    tmp_path,
    'noting',
    f'import sys\nopen({str(notes)!r}, "a").write(sys.argv[1])\n'
    'if sys.argv[1] == "x":\n  sys.exit(1)\n',
  )

  def run(*jobs):
    notes.write_text('')
    run_jobs(jobs, tmp_path / 'runs', 1)
    return notes.read_text()

  return run


def test_what_needs_a_changed_job_runs_again(noted):
  one, two = (
    Job('one', 'noting', ('1',)),
    Job('two', 'noting', ('2',), ('one',)),
  )
  three = Job('three', 'noting', ('3',), ('two',))
  apart = Job('apart', 'noting', ('4',))
  assert noted(one, two, three, apart) == '1234'
  changed = dataclasses.replace(one, arguments=('5',))
  assert noted(changed, two, three, apart) == '523'
  assert noted(changed, two, three, apart) == ''


def test_an_interruption_leaves_no_outdated_result(noted):
  one, two = (
    Job('one', 'noting', ('1',)),
    Job('two', 'noting', ('2',), ('one',)),
  )
  assert noted(one, two) == '12'
  failing = dataclasses.replace(one, arguments=('x',))
  with pytest.raises(JobError, match='one failed'):
    noted(failing, two)
  # `one` is as before, and `two` may have been made from anything.
  assert noted(one, two) == '12'


def test_an_interruption_ends_the_running_job_and_starts_no_other(
  tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  script(
    tmp_path,
    'slow',
    'import os, pathlib, signal, sys, time\n'
    'pathlib.Path(sys.argv[1]).touch()\n'
    'os.kill(os.getppid(), signal.SIGUSR1)\n'
    'time.sleep(60)\n',
  )

  def interrupt(*_):
    raise KeyboardInterrupt

  one, two = Job('one', 'slow', ('one',)), Job('two', 'slow', ('two',))
  begun = time.monotonic()
  before = signal.signal(signal.SIGUSR1, interrupt)
  try:
    with pytest.raises(KeyboardInterrupt):
      run_jobs([one, two], tmp_path / 'runs', 1)
  finally:
    signal.signal(signal.SIGUSR1, before)
  assert time.monotonic() - begun < 30
  assert (tmp_path / 'one').exists()
  assert not (tmp_path / 'two').exists()
  assert not one.is_done(tmp_path / 'runs')


def test_the_expected_time_follows_the_operations():
  pace = _Pace(workers=2)
  pace.add(Job('evaluate/a', 'x', ()), 120.0)
  pace.add(Job('train/a', 'x', (), operations=10.0), 600.0)
  left = [
    Job('evaluate/b', 'x', ()),
    Job('evaluate/c', 'x', ()),
    Job('train/b', 'x', (), operations=100.0),
  ]
  assert pace.hours(left) == pytest.approx((240 + 6000) / 2 / 3600)


def training(tmp_path, name, value, needs=()):
  arguments = (value, f'--workdir={tmp_path / name}')
  return Job(f'train/{name}', 'noting', arguments, needs, 1, 1.0)


def test_a_workdir_of_another_training_is_not_resumed(noted, tmp_path):
  first = training(tmp_path, 'first', '1')
  second = training(tmp_path, 'second', '2', (first.name,))
  assert noted(first, second) == '12'
  for job in (first, second):
    job.workdir.mkdir()
  assert noted(first, second) == ''
  other = training(tmp_path, 'first', '3')
  with pytest.raises(
    JobError, match=r'train/first: .* remove \S+/first, \S+/sec'
  ):
    noted(other, second)
  assert noted(first, second) == ''  # refused before anything has changed
  first.workdir.rmdir()
  with pytest.raises(JobError, match=r'train/second: its command or its start'):
    noted(other, second)
  second.workdir.rmdir()
  assert noted(other, second) == '32'


def test_an_interrupted_training_resumes_with_its_own_command_alone(
  noted, tmp_path
):
  begun = training(tmp_path, 'first', 'x')
  begun.workdir.mkdir()
  for _ in range(2):
    with pytest.raises(JobError, match='train/first failed'):
      noted(begun)
  with pytest.raises(JobError, match=r'train/first: its command'):
    noted(training(tmp_path, 'first', '1'))
