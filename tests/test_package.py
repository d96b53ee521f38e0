"""The package of `pip install .`: its files, metadata and script."""

import ast
import email
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from importlib import metadata

import commands
import doc_flags
import pytest
from commands import ROOT, assert_refused
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from synermedgen_jax import __version__, cli

SOURCES = (
  *('pyproject.toml', 'setup.py', 'MANIFEST.in', 'README.md', 'LICENSE'),
  *('requirements.txt', 'requirements-dev.txt'),
)
FOLDERS = ('synermedgen_jax', 'configs', 'projects', 'weights/demo')


def run(*command, cwd, **environment):
  return subprocess.run(
    list(map(str, command)),
    cwd=cwd,
    env=os.environ | environment,
    capture_output=True,
    text=True,
    timeout=600,
  )


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
  """Built from a copy: building writes into the folder of the sources."""
  source = tmp_path_factory.mktemp('package')
  for name in SOURCES:
    shutil.copy(ROOT / name, source)
  ignored = shutil.ignore_patterns('__pycache__')
  for name in FOLDERS:
    shutil.copytree(ROOT / name, source / name, ignore=ignored)
  done = run(
    *(sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-deps'),
    *('--no-build-isolation', '--disable-pip-version-check'),
    *('--wheel-dir', source / 'dist', '.'),
    cwd=source,
  )
  assert done.returncode == 0, done.stderr
  (path,) = (source / 'dist').glob('*.whl')
  return path


def requirements(name):
  """The requirements that a file lists itself."""
  lines = (ROOT / name).read_text().splitlines()
  return [Requirement(line) for line in lines if line and line[0] not in '#-']


def test_the_package_holds_all_modules_configs_and_data_and_nothing_else(wheel):
  folders = {'synermedgen_jax': 'synermedgen_jax'}
  folders['configs'] = 'synermedgen_jax/configs'
  folders['weights/demo'] = 'synermedgen_jax/demo'
  expected = {
    f'{installed}/{path.relative_to(ROOT / folder)}'
    for folder, installed in folders.items()
    for path in (ROOT / folder).rglob('*')
    if path.is_file() and '__pycache__' not in path.parts
  }
  packed = {
    name
    for name in zipfile.ZipFile(wheel).namelist()
    if '.dist-info/' not in name
  }
  assert packed == expected


def metadata_of(wheel):
  archive = zipfile.ZipFile(wheel)
  (name,) = (n for n in archive.namelist() if n.endswith('/METADATA'))
  scripts = name.replace('METADATA', 'entry_points.txt')
  return (
    email.message_from_bytes(archive.read(name)),
    archive.read(scripts).decode(),
  )


def test_the_package_depends_on_the_requirements(wheel):
  metadata, scripts = metadata_of(wheel)
  assert metadata['Version'] == __version__
  assert scripts.split() == [
    *('[console_scripts]', 'synermedgen', '=', 'synermedgen_jax.cli:main')
  ]
  needed = [Requirement(text) for text in metadata.get_all('Requires-Dist')]
  assert {r for r in needed if not r.marker} == set(
    requirements('requirements.txt')
  )

  def extra(name):
    added = [
      r for r in needed if r.marker and r.marker.evaluate({'extra': name})
    ]
    return {str(r).partition(';')[0].strip() for r in added}

  assert metadata.get_all('Provides-Extra') == [
    *('tpu', 'gcs', 'gpu', 'app', 'dev')
  ]
  assert extra('tpu') == {'jax[tpu]', 'gcsfs'}
  assert extra('gcs') == {'gcsfs'}
  assert extra('gpu') == {'jax[cuda12]'}
  assert extra('app') == {'starlette>=0.40', 'uvicorn>=0.30'}
  assert extra('app') <= extra('dev')
  assert extra('dev') == {str(r) for r in requirements('requirements-dev.txt')}


def imported(folder):
  """Top-level names that the modules of a folder import, with one file each.

  The modules of the extra `app` are left out.
  """
  top_levels = {}
  for path in sorted((ROOT / folder).rglob('*.py')):
    if path.parent.name == 'serving' or path.name == 'app.py':
      continue
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
      elif isinstance(node, ast.ImportFrom) and not node.level:
        names = [node.module]
      else:
        continue
      for name in names:
        top_levels.setdefault(name.partition('.')[0], path)
  return top_levels


def test_every_requirement_is_imported_and_every_import_required():
  owners = {
    module: {canonicalize_name(name) for name in names}
    for module, names in metadata.packages_distributions().items()
  }
  ours = {'synermedgen_jax', 'configs', 'projects'}
  listed = {canonicalize_name(r.name) for r in requirements('requirements.txt')}
  used = set()
  for module, path in imported('synermedgen_jax').items():
    if module in ours or module in sys.stdlib_module_names:
      continue
    assert owners[module] & listed, f'{path} imports {module}: not required'
    used |= owners[module]
  used.add('ipyniivue')  # read as a file: reporting/niivue.py
  assert listed <= used, 'required, and not imported'


def test_no_config_imports_the_folder_under_a_name_that_installing_changes():
  assert 'configs' not in imported('configs')


def test_every_command_module_has_a_subcommand():
  modules = {
    path.stem
    for path in (ROOT / 'synermedgen_jax').glob('*.py')
    if "if __name__ == '__main__'" in path.read_text()
  }
  assert set(modules_of_commands()) == modules - {'cli'}


def test_its_help_names_every_subcommand_and_imports_nothing_heavy():
  code = """
import sys, time
sys.argv = ['synermedgen']
from synermedgen_jax import cli
cli.main()
print(time.process_time(), *sys.modules, file=sys.stderr)
"""
  done = run(sys.executable, '-c', code, cwd=ROOT)
  assert done.returncode == 0
  job, _, further = done.stdout.partition('Further commands:')
  shown = re.findall(r'^  ([a-z-]+) +[A-Z].*\.$', job, re.MULTILINE)
  assert shown == list(cli.JOB)
  shown = re.findall(r'^  ([a-z-]+) +[A-Z].*\.$', further, re.MULTILINE)
  assert shown == list(cli.FURTHER)
  assert max(map(len, done.stdout.splitlines())) <= 80
  seconds, *modules = done.stderr.split()
  assert float(seconds) < 0.5
  assert not {'jax', 'numpy', 'absl', 'flax'} & set(modules)


@pytest.mark.parametrize('name', ['import-bagel', 'import_bagel'])
def test_a_subcommand_is_the_module(name):
  result = commands.run('cli', name, '--help')
  assert result == commands.run('import_bagel', '--help')
  assert result[0] == 0
  assert '--source' in result[1]


def test_a_group_has_its_commands_by_a_second_word():
  result = commands.run('cli', 'export', 'weights', '--help')
  assert result == commands.run('ship_weights', '--help')
  code, out, _ = commands.run('cli', 'export')
  assert code == 0
  assert re.findall(r'^  (\w+) +[A-Z]', out, re.MULTILINE) == [
    *('bagel', 'tests', 'weights'),
  ]


@pytest.mark.parametrize(
  ('words', 'message'),
  [
    (['tarin'], "unknown command 'tarin'; did you mean train?"),
    (
      ['export', 'wieghts'],
      "'export wieghts'; did you mean export weights?",
    ),
    (['xyz'], "unknown command 'xyz': expected one of check, prepare, train,"),
  ],
)
def test_an_unknown_subcommand_is_refused(words, message):
  assert_refused(commands.run('cli', *words, '--workdir=x'), message)


def modules_of_commands():
  for entry in cli.COMMANDS.values():
    yield from entry.values() if isinstance(entry, dict) else [entry]


HEAVY = {
  *('jax', 'flax', 'optax', 'orbax', 'grain', 'tensorstore', 'matplotlib'),
  *('nibabel', 'SimpleITK', 'pydicom', 'scipy', 'PIL', 'safetensors'),
}
HELP = """
import runpy, sys
sys.argv = [sys.argv[1], '--help']
try:
  runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)
except SystemExit as end:
  print(end.code, *sys.modules, file=sys.stderr)
"""


@pytest.mark.parametrize('module', sorted(set(modules_of_commands())))
def test_help_shows_the_flags_and_imports_nothing_that_takes_long(module):
  done = run(sys.executable, '-c', HELP, f'synermedgen_jax.{module}', cwd=ROOT)
  code, *imported = done.stderr.split()
  assert code == '0'
  assert not HEAVY & set(imported)
  text, _, flags = done.stdout.partition('\nFlags:\n')
  assert text.strip()
  defined = doc_flags.defined_flags(f'synermedgen_jax.{module}')
  required = [name for name, flag in defined.items() if flag.required]
  for name in required:
    block = rf'^  --{name}(?:, -\w)?\n((?: {{6}}.*\n)+)'
    (own,) = re.findall(block, flags, re.MULTILINE)
    assert own.split()[-1] == 'Required.'


COMMAND = """
from ml_collections import config_flags
from synermedgen_jax.config.command_line import run_command

CONFIG = config_flags.DEFINE_config_file('config', None, '')
run_command(lambda: print(CONFIG.value.stage, CONFIG.value.steps))
"""


def test_a_config_of_the_package_stands_in_for_one_of_the_current_folder(
  wheel, tmp_path
):
  zipfile.ZipFile(wheel).extractall(tmp_path / 'installed')
  (tmp_path / 'command.py').write_text(COMMAND)

  def stage_of(*flags):
    done = run(
      *(sys.executable, 'command.py', *flags, '--config.steps=7'),
      cwd=tmp_path,
      PYTHONPATH=str(tmp_path / 'installed'),
    )
    return done.stdout.strip() or done.stderr.strip()

  assert stage_of('--config=configs/stage1.py') == 'gau 7'
  assert stage_of('--config', 'configs/stage2.py') == 'ucg 7'
  assert stage_of('--config=configs/stage9.py').startswith('Error: --config: ')
  (tmp_path / 'configs').mkdir()
  (tmp_path / 'configs' / 'stage1.py').write_text(
    'from ml_collections import ConfigDict\n'
    'def get_config():\n'
    "  return ConfigDict({'stage': 'mine', 'steps': 1})\n"
  )
  assert stage_of('--config=configs/stage1.py') == 'mine 7'


@pytest.mark.slow
def test_the_installed_package_runs_outside_of_the_repository(wheel, tmp_path):
  venv.create(tmp_path / 'venv', with_pip=True)
  python = tmp_path / 'venv' / 'bin' / 'python'
  done = run(python, '-m', 'pip', 'install', '--quiet', wheel, cwd=tmp_path)
  assert done.returncode == 0, done.stderr
  assert (
    run(python, '-c', 'import synermedgen_jax', cwd=tmp_path).returncode == 0
  )
  for name in ('configs', 'projects'):
    assert run(python, '-c', f'import {name}', cwd=tmp_path).returncode != 0
  command = python.with_name('synermedgen')
  done = run(command, 'train', '--help', cwd=tmp_path, JAX_PLATFORMS='cpu')
  assert done.returncode == 0, done.stderr
  assert done.stdout.startswith('Trains one stage')
  # The config comes with the package, and says that a store is missing.
  done = run(
    *(command, 'train', '--config=configs/stage1.py:tiny', '--workdir=run'),
    cwd=tmp_path,
    JAX_PLATFORMS='cpu',
  )
  assert done.returncode == 1
  assert re.match(r'Error: config\.', done.stderr), done.stderr
