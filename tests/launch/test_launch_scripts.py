"""Commands that launch/tpu_pod.sh calls, also when slices are preempted.

There is no cloud: `gcloud` writes down how it is called and answers as told.
"""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from launch_fakes import ROOT, SCRIPTS, UNPACK, Stage, assert_refused

TRAIN = (
  '--config=configs/stage1.py:bagel_7b',
  '--workdir=gs://bucket/run',
  '--config.store=gs://bucket/store',
)
SLICE = ('--name=pod', '--type=v5p-64', '--spot', '--zone=us-east5-a')
REFUSED = 'ERROR: (gcloud.compute.tpus.tpu-vm.describe)'
GONE = f"1 {REFUSED} NOT_FOUND: Resource 'pod' was not found"


@pytest.fixture
def cloud(tmp_path):
  """Stand-ins for the commands that tpu_pod.sh calls, without waiting."""
  stage = Stage(tmp_path)
  stage.fake('gcloud', 'git', 'sleep')
  return stage


def verbs(calls):
  """Actions on slices, without queries."""
  names = []
  for call in calls:
    words = call.split()
    if words[:3] != ['gcloud', 'compute', 'tpus'] or words[4] == 'describe':
      continue
    ours = [w for w in ('setup;', 'start', 'follow') if w in words]
    names.append(ours[0].strip(';') if ours else words[4])
  return names


@pytest.mark.parametrize(
  'script', sorted(str(path.relative_to(ROOT)) for path in SCRIPTS)
)
def test_shellcheck_finds_nothing(script):
  done = subprocess.run(
    ['shellcheck', '-x', script],
    cwd=ROOT,
    capture_output=True,
    text=True,
    env={
      **os.environ,
      'PATH': f'{Path(sys.executable).parent}:{os.environ["PATH"]}',
    },
  )
  assert done.returncode == 0, done.stdout + done.stderr


def test_a_dry_run_on_a_slice_prints_every_command_and_calls_none(cloud):
  done = cloud.run(
    'launch/tpu_pod.sh', 'train', *SLICE, '--dry_run', '--', *TRAIN
  )
  assert done.returncode == 0
  assert done.stderr == ''
  assert done.stdout.splitlines() == [
    'gcloud compute tpus tpu-vm describe pod'
    " '--format=value(state)' --zone=us-east5-a --quiet",
    'gcloud compute tpus tpu-vm create pod --accelerator-type=v5p-64'
    ' --version=v2-alpha-tpuv5 --spot --zone=us-east5-a --quiet',
    'gcloud compute tpus tpu-vm describe pod'
    " '--format=value(state)' --zone=us-east5-a --quiet",
    'mkdir -p runs',
    'git archive --format=tar.gz --output=runs/pod.tar.gz HEAD',
    'gcloud compute tpus tpu-vm scp runs/pod.tar.gz pod:synermedgen.tar.gz'
    ' --worker=all --zone=us-east5-a --quiet',
    f"gcloud compute tpus tpu-vm ssh pod --worker=all '--command={UNPACK}'"
    ' --zone=us-east5-a --quiet',
    'gcloud compute tpus tpu-vm ssh pod --worker=all'
    " '--command=bash synermedgen/code/launch/tpu_worker.sh start"
    ' --config=configs/stage1.py:bagel_7b --workdir=gs://bucket/run'
    " --config.store=gs://bucket/store' --zone=us-east5-a --quiet",
    'gcloud compute tpus tpu-vm ssh pod --worker=all'
    " '--command=bash synermedgen/code/launch/tpu_worker.sh follow'"
    ' --zone=us-east5-a --quiet',
  ]
  assert cloud.calls() == []
  assert not (cloud.root / 'runs').exists()


def test_a_dry_run_on_a_queued_resource_prints_its_commands(cloud):
  pod = ('--name=pod', '--queued', '--project=ours', '--dry_run')
  up = cloud.run('launch/tpu_pod.sh', 'up', *pod, '--type=v6e-64', '--spot')
  down = cloud.run('launch/tpu_pod.sh', 'down', *pod)
  describe = (
    'gcloud compute tpus queued-resources describe pod'
    " '--format=value(state.state)' --project=ours --quiet"
  )
  assert up.stdout.splitlines() == [
    describe,
    'gcloud compute tpus queued-resources create pod --node-id=pod'
    ' --accelerator-type=v6e-64 --runtime-version=v2-alpha-tpuv6e --spot'
    ' --project=ours --quiet',
    describe,
  ]
  assert down.stdout.splitlines() == [
    'gcloud compute tpus queued-resources delete pod --force'
    ' --project=ours --quiet'
  ]
  assert cloud.calls() == []


@pytest.mark.parametrize(
  ('action', 'command'),
  [
    (
      'tail',
      'gcloud compute tpus tpu-vm ssh pod --worker=0'
      " '--command=tail -n 50 -F synermedgen/log' --quiet",
    ),
    (
      'status',
      "gcloud compute tpus tpu-vm describe pod '--format=value(state)' --quiet",
    ),
    ('down', 'gcloud compute tpus tpu-vm delete pod --quiet'),
  ],
)
def test_a_dry_run_prints_the_one_command_of(cloud, action, command):
  done = cloud.run('launch/tpu_pod.sh', action, '--name=pod', '--dry_run')
  assert done.stdout.splitlines() == [command]
  assert cloud.calls() == []


@pytest.mark.parametrize('queued', [(), ('--queued',)])
def test_a_run_calls_what_its_dry_run_prints(cloud, queued):
  options = ('train', *SLICE, *queued)
  dry = cloud.run('launch/tpu_pod.sh', *options, '--dry_run', '--', *TRAIN)
  cloud.answers(describe=[GONE, '0 READY'])
  assert cloud.run('launch/tpu_pod.sh', *options, '--', *TRAIN).returncode == 0
  called = [c for c in cloud.calls() if not c.startswith('git diff')]
  printed = [' '.join(shlex.split(line)) for line in dry.stdout.splitlines()]
  printed.remove('mkdir -p runs')  # the one that is not a fake
  assert called == printed


def test_options_reach_the_train_command_as_they_were_typed(cloud):
  odd = ('--config.mesh=(2, 32, 1)', "--config.note=it's $HOME")
  done = cloud.run(
    'launch/tpu_pod.sh', 'train', *SLICE, '--dry_run', '--', *TRAIN, *odd
  )
  ssh = next(line for line in done.stdout.splitlines() if ' start ' in line)
  (remote,) = [w for w in shlex.split(ssh) if w.startswith('--command=')]
  words = shlex.split(remote.removeprefix('--command='))
  assert words[3:] == [*TRAIN, *odd]


def test_a_slice_that_is_ready_is_used_and_not_created(cloud):
  cloud.answers(describe=['0 READY'])
  done = cloud.run('launch/tpu_pod.sh', 'train', *SLICE, '--', *TRAIN)
  assert done.returncode == 0
  assert verbs(cloud.calls()) == ['scp', 'setup', 'start', 'follow']


def test_a_run_that_was_preempted_and_saved_is_started_again(cloud):
  cloud.answers(describe=['0 READY'] * 3, follow=['75', '75', '0'])
  done = cloud.run('launch/tpu_pod.sh', 'train', *SLICE, '--', *TRAIN)
  assert done.returncode == 0
  assert verbs(cloud.calls()) == [
    'scp', 'setup', *('start', 'follow') * 3,
  ]  # fmt: skip
  assert len(set(cloud.calls(' start '))) == 1


@pytest.mark.parametrize(
  ('options', 'lost', 'ready', 'deleted'),
  [
    ((), '0 PREEMPTED', '0 READY', ['delete']),
    (('--queued',), '0 SUSPENDED', '0 ACTIVE', ['delete']),
    ((), GONE, '0 READY', []),
  ],
)
@pytest.mark.parametrize('status', ['75', '1', '255'])
def test_a_preempted_slice_is_created_again_and_the_command_repeated(
  cloud, options, lost, ready, deleted, status
):
  questions = 1 if status == '75' else 2  # an error, or a lost slice?
  cloud.answers(
    describe=[
      ready,
      *[lost] * questions,
      *[GONE] * len(deleted),
      ready,
    ],
    follow=[status, '0'],
  )
  done = cloud.run('launch/tpu_pod.sh', 'train', *SLICE, *options, '--', *TRAIN)
  assert done.returncode == 0, done.stderr
  once = ['scp', 'setup', 'start', 'follow']
  assert verbs(cloud.calls()) == [*once, *deleted, 'create', *once]
  assert len(set(cloud.calls(' start '))) == 1


def test_a_slice_lost_during_the_installation_is_created_again(cloud):
  cloud.answers(
    describe=['0 READY', '0 PREEMPTED', '0 PREEMPTED', GONE, '0 READY'],
    scp=['1', '0'],
  )
  done = cloud.run('launch/tpu_pod.sh', 'train', *SLICE, '--', *TRAIN)
  assert done.returncode == 0
  assert verbs(cloud.calls()) == [
    'scp', 'delete', 'create', 'scp', 'setup', 'start', 'follow',
  ]  # fmt: skip


def test_another_status_stops_with_it_and_prints_a_line(cloud):
  cloud.answers(describe=['0 READY', '0 READY'], follow=['3'])
  done = cloud.run('launch/tpu_pod.sh', 'train', *SLICE, '--', *TRAIN)
  assert done.returncode == 3
  assert_refused(done, 'status 3', 'pod')
  assert verbs(cloud.calls()) == ['scp', 'setup', 'start', 'follow']


def test_lost_connections_are_taken_up_again_however_many(cloud):
  cloud.answers(describe=['0 READY'] * 25, follow=['255'] * 12 + ['0'])
  done = cloud.run('launch/tpu_pod.sh', 'train', *SLICE, '--', *TRAIN)
  assert done.returncode == 0
  assert verbs(cloud.calls()) == ['scp', 'setup', *('start', 'follow') * 13]
  assert len(set(cloud.calls(' start '))) == 1


def test_a_slice_that_is_never_reached_is_given_up(cloud):
  cloud.answers(describe=['0 READY'] * 40, start=['255'] * 40)
  done = cloud.run('launch/tpu_pod.sh', 'train', *SLICE, '--', *TRAIN)
  assert done.returncode == 255
  assert_refused(done, 'status 255')
  assert len(cloud.calls(' start ')) == 10


def test_a_gcloud_out_of_reach_costs_no_slice(cloud):
  cloud.answers(
    describe=['0 READY', *[f'1 {REFUSED} timed out'] * 2, '0 READY'],
    follow=['75', '0'],
  )
  done = cloud.run('launch/tpu_pod.sh', 'train', *SLICE, '--', *TRAIN)
  assert done.returncode == 0
  assert 'create' not in verbs(cloud.calls())
  assert 'delete' not in verbs(cloud.calls())


def test_a_gcloud_that_refuses_to_answer_is_quoted(cloud):
  cloud.answers(describe=[f'1 {REFUSED} PERMISSION_DENIED'])
  done = cloud.run('launch/tpu_pod.sh', 'up', *SLICE)
  assert_refused(done, 'pod', 'PERMISSION_DENIED')
  assert verbs(cloud.calls()) == []


def test_without_room_the_first_slice_fails_and_a_later_one_is_awaited(cloud):
  cloud.answers(describe=[GONE], create=['1'])
  done = cloud.run('launch/tpu_pod.sh', 'up', *SLICE)
  assert done.returncode != 0
  assert 'Error: cannot create slice pod; --queued waits' in done.stderr

  cloud.answers(
    describe=['0 READY', GONE, GONE, GONE, '0 READY'],
    create=['1', '1', '0'],
    follow=['75', '0'],
  )
  done = cloud.run('launch/tpu_pod.sh', 'train', *SLICE, '--', *TRAIN)
  assert done.returncode == 0
  assert cloud.calls('sleep') == ['sleep 300'] * 2


def test_a_queued_resource_is_awaited(cloud):
  cloud.answers(
    describe=[
      GONE,
      '0 WAITING_FOR_RESOURCES',
      '0 WAITING_FOR_RESOURCES',
      '0 PROVISIONING',
      '0 ACTIVE',
    ]
  )
  done = cloud.run('launch/tpu_pod.sh', 'up', *SLICE, '--queued')
  assert done.returncode == 0
  assert verbs(cloud.calls()) == ['create']
  assert done.stderr.splitlines() == [
    'pod: NONE', 'pod: WAITING_FOR_RESOURCES', 'pod: PROVISIONING',
  ]  # fmt: skip


def test_a_request_that_failed_is_not_repeated(cloud):
  cloud.answers(describe=['0 FAILED'])
  done = cloud.run('launch/tpu_pod.sh', 'up', *SLICE, '--queued')
  assert done.returncode != 0
  assert 'Error: pod is FAILED' in done.stderr
  assert verbs(cloud.calls()) == []


def test_status_prints_the_output_of_gcloud(cloud):
  cloud.answers(describe=['0 PREEMPTED'])
  done = cloud.run('launch/tpu_pod.sh', 'status', '--name=pod')
  assert done.stdout == 'pod: PREEMPTED\n'


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ((), 'up, setup, train, tail, status or down'),
    (('fly', *SLICE), 'up, setup, train, tail, status or down'),
    (('down',), '--name='),
    (('up', '--name=pod'), '--type='),
    (('train', '--name=pod', '--', *TRAIN), '--type='),
    (('train', *SLICE), '--workdir=gs://'),
    (('train', *SLICE, '--', '--workdir=runs/one'), '--workdir=gs://'),
    (('train', *SLICE, '--workdir=gs://b/run'), 'unknown option --workdir='),
  ],
)
def test_tpu_pod_names_the_option_that_is_missing(cloud, arguments, message):
  assert_refused(cloud.run('launch/tpu_pod.sh', *arguments), message)
  assert cloud.calls() == []
