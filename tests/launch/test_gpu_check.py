"""launch/gpu_check.sh keeps to its time, and one failing part stops no other.

Python is a stand-in that writes down how it is called.
"""

import pytest
from launch_fakes import Stage, assert_refused

# Answers as a GPU machine does; a part named in $SLOW never ends.
PYTHON = """\
#!/usr/bin/env bash
case "$*" in
  *device_kind*) echo "${DEVICE:-NVIDIA H100 80GB HBM3}"; exit 0 ;;
  *'import torch'*) exit "${NO_TORCH:-0}" ;;
esac
echo "$*" >> "$FAKES/calls"
[[ -z "${SLOW:-}" || "$*" != *"$SLOW"* ]] || sleep 60
[[ -z "${BROKEN:-}" || "$*" != *"$BROKEN"* ]] || { echo 'Error: no.'; exit 1; }
"""
# `timeout` with a hundredth of the seconds.
TIMEOUT = """\
#!/usr/bin/env bash
exec /usr/bin/timeout --kill-after=1 "0.$(printf %02d "$2")" "${@:3}"
"""


@pytest.fixture
def machine(tmp_path):
  stage = Stage(tmp_path)
  stage.fake('python', script=PYTHON)
  stage.fake('timeout', script=TIMEOUT)
  return stage


def test_every_part_writes_to_the_file_of_the_device(machine):
  done = machine.run('launch/gpu_check.sh', '--output=out')
  calls = machine.calls()
  assert done.returncode == 0, done.stdout
  output = '--output=out/nvidia_h100_80gb_hbm3.json'
  assert all(call.endswith(output) for call in calls[:-1])
  assert calls[-1].endswith('gpu_tables out/nvidia_h100_80gb_hbm3.json')
  steps = [c for c in calls if 'train_step' in c and '--profile' not in c]
  assert len(steps) == 6
  for stage in ('stage1', 'stage2'):
    for remat in ('none', 'dots', 'full'):
      (call,) = [c for c in steps if f'={stage} ' in c and f'={remat} ' in c]
      assert '--model=base_1b' in call
  rivals = [c.split()[2] for c in calls if 'torch_rival' in c]
  assert rivals == ['attention', *['step'] * 4, 'sampling']
  assert any('--points=50 --batch=1,8' in c for c in calls)


def test_a_part_that_fails_or_takes_too_long_stops_no_other(machine):
  done = machine.run(
    'launch/gpu_check.sh', '--output=out', SLOW='lengths=11648', BROKEN='dots'
  )
  assert done.returncode == 1
  said = done.stdout.splitlines()
  assert 'attention, 11.6k and 32k tokens: stopped after 90 s' in said
  assert 'stage1, remat dots: failed: Error: no.' in said
  assert any(line.startswith('sampling, PyTorch: ') for line in said)
  assert said[-1] == 'Results: out/nvidia_h100_80gb_hbm3.json'


def test_without_pytorch_its_parts_are_left_out(machine):
  done = machine.run('launch/gpu_check.sh', '--output=out', NO_TORCH='1')
  assert done.returncode == 0
  assert 'PyTorch is not installed' in done.stdout
  assert not [c for c in machine.calls() if 'torch_rival' in c]


def test_wheels_are_installed_without_a_network(machine):
  (machine.root / 'wheels').mkdir()
  machine.run('launch/gpu_check.sh', '--output=out', '--wheels=wheels')
  assert machine.calls()[0] == (
    '-m pip install --quiet --disable-pip-version-check --no-index '
    '--find-links=wheels -r requirements.txt'
  )


@pytest.mark.parametrize(
  ('options', 'environment', 'message'),
  [
    (['--big'], {}, 'unknown option --big'),
    (['--wheels=nowhere'], {}, 'nowhere: no such folder'),
    ([], {'DEVICE': 'cpu'}, 'JAX finds no GPU; --small runs on a CPU'),
  ],
)
def test_a_wrong_call_is_refused(machine, options, environment, message):
  done = machine.run('launch/gpu_check.sh', *options, **environment)
  assert_refused(done, message)
