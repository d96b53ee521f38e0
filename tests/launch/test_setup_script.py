"""Which Python launch/setup.sh makes .venv of."""

import subprocess
from pathlib import Path

import pytest
from launch_fakes import ROOT

FAKE = """#!/bin/sh
case "$*" in
  *"-m venv"*) mkdir -p .venv/bin; cp {path} .venv/bin/python ;;
  *version_info*print*|*"print("*) echo {version} ;;
  *version_info*) exit {unsupported} ;;
esac
"""


@pytest.fixture
def folder(tmp_path):
  (tmp_path / 'launch').symlink_to(ROOT / 'launch')
  (tmp_path / 'requirements.txt').touch()
  for version in ('3.10', '3.11', '3.12'):
    path = tmp_path / f'python{version}'
    path.write_text(
      FAKE.format(
        path=path, version=version, unsupported=int(version == '3.10')
      )
    )
    path.chmod(0o755)
  return tmp_path


def setup(folder, python=''):
  return subprocess.run(
    ['bash', 'launch/setup.sh', 'requirements.txt'],
    cwd=folder,
    env={'PATH': f'{folder}:/usr/bin:/bin', 'PYTHON': python},
    capture_output=True,
    text=True,
  )


def test_an_environment_that_was_interrupted_is_made_anew(folder):
  """`venv` writes its Python first, and pip last."""
  (folder / '.venv/bin').mkdir(parents=True)
  path = folder / '.venv/bin/python'
  whole = (folder / 'python3.12').read_text()
  path.write_text(whole.replace('esac', '  *"-m pip"*) exit 1 ;;\nesac'))
  path.chmod(0o755)
  done = setup(folder)
  assert done.returncode == 0, done.stderr
  assert 'Replacing .venv, which has no pip ...' in done.stdout
  assert made_with(folder) == whole
  assert (folder / '.venv/requirements.txt.installed').exists()
  assert 'Replacing' not in setup(folder).stdout


def made_with(folder):
  return (folder / '.venv/bin/python').read_text()


@pytest.mark.parametrize(
  ('devices', 'preset', 'expected'),
  [('', '', 'cpu'), ('', 'tpu', 'tpu'), ('nvidia-smi', '', 'unset')],
)
def test_a_machine_without_accelerator_uses_its_cpu(
  folder, devices, preset, expected
):
  """Else libtpu, which the tests install, warns that it has no TPU."""
  if list(Path('/dev').glob('accel*')) or list(Path('/dev/vfio').glob('*')):
    pytest.skip('this machine may have a TPU')
  if devices:
    (folder / devices).write_text('#!/bin/sh\n')
    (folder / devices).chmod(0o755)
  done = subprocess.run(
    'source launch/setup.sh requirements.txt; echo ${JAX_PLATFORMS:-unset}',
    shell=True,
    executable='/bin/bash',
    cwd=folder,
    env={'PATH': f'{folder}:/usr/bin:/bin', 'JAX_PLATFORMS': preset},
    capture_output=True,
    text=True,
  )
  assert done.stdout.split()[-1] == expected


def test_an_unsupported_python_is_refused_before_anything_is_made(folder):
  done = setup(folder, './python3.10')
  assert done.returncode == 1
  assert done.stderr == (
    'Error: ./python3.10: needs Python 3.11 or 3.12; install it, or set '
    'PYTHON= to it.\n'
  )
  assert not (folder / '.venv').exists()


@pytest.mark.parametrize(
  ('existing', 'python', 'replaced'),
  [
    ('3.10', '', True),
    ('3.11', '', False),
    ('3.11', './python3.12', True),
    ('3.11', './python3.11', False),
  ],
)
def test_an_existing_environment_of_another_version_is_replaced(
  folder, existing, python, replaced
):
  (folder / '.venv/bin').mkdir(parents=True)
  (folder / '.venv/kept').touch()
  text = (folder / f'python{existing}').read_text()
  path = folder / '.venv/bin/python'
  path.write_text(text)
  path.chmod(0o755)
  done = setup(folder, python)
  assert done.returncode == 0, done.stderr
  line = f'Replacing .venv, which has Python {existing} ...'
  assert (line in done.stdout) == replaced
  assert (folder / '.venv/kept').exists() != replaced
