"""The docs, checked against the code: commands, configs, links, examples.

Every command of the pages, of the docstrings and of the scripts' headers is
compared with what its module or script accepts. What a train command builds on
1 to 64 devices is in `training/test_flagship_configs.py`; the commands of
train_bagel.md are run by `test_flagship.py`, extend.md is followed by
`test_extend.py`.
"""

import ast
import dataclasses
import importlib
import re

import doc_commands
import doc_flags
import doc_pages
import nibabel as nib
import numpy as np
import pytest
from doc_commands import Command
from doc_pages import ROOT

from synermedgen_jax.baselines.registry import SYSTEMS
from synermedgen_jax.baselines.system import Setting
from synermedgen_jax.config.defaults import default_config, system_config
from synermedgen_jax.models.autoencoder import AutoencoderConfig
from synermedgen_jax.models.presets import PRESETS
from synermedgen_jax.reporting import config_reference
from synermedgen_jax.training.config_checks import check_start
from synermedgen_jax.training.objectives import ObjectiveConfig

SETTING = Setting(
  (256, 256),
  ('ct', 'mr'),
  conditioned=False,
  autoencoder=AutoencoderConfig(3, 128, (1, 2, 4, 4), 2, 16),
)
PAGES = doc_pages.pages()
# Options of sbatch, gcloud, pip and absl in prose.
OTHERS = {'signal', 'requeue', 'verbosity'}
COMMANDS = doc_commands.all_commands()
OF_MODULES = [c for c in COMMANDS if c.module]
OF_SCRIPTS = [c for c in COMMANDS if c.script]
TRAINING = [c for c in COMMANDS if c.block and c.trains]

every_page = pytest.mark.parametrize(
  'page', PAGES, ids=lambda p: str(p.relative_to(ROOT))
)


def each(commands: list[Command]):
  return pytest.mark.parametrize('command', commands, ids=str)


def test_the_pages_contain_commands():
  pages = {c.where.partition(':')[0] for c in TRAINING}
  assert pages >= {
    'README.md',
    'docs/running.md',
    'docs/train_bagel.md',
    'configs/stage2.py',
    'configs/small/stage1.py',
    'launch/gpu.sh',
    'launch/tpu_pod.sh',
  }


@each(OF_MODULES)
def test_a_command_names_a_module_and_its_flags(command):
  assert doc_flags.source_of(command.module), 'no such module'
  defined = doc_flags.defined_flags(command.module)
  given = {}
  for word in command.arguments:
    if word.startswith('--'):
      name, equals, value = word.removeprefix('--').partition('=')
      given[name] = value if equals else None
  for name, value in given.items():
    if name.startswith('config.') and name != 'config.KEY':
      assert 'config' in defined, f'--{name}'
      continue
    if name == 'config.KEY':
      continue
    assert name in defined, f'--{name} is no flag of {command.module}'
    if value is None and not command.block:
      continue  # prose names the flag alone
    problem = defined[name].problem(value)
    assert not problem, f'--{name}: {problem}'
  excused = {'help', doc_flags.excusing(command.module)} & given.keys()
  if command.complete and not excused:
    needed = {name for name, flag in defined.items() if flag.required}
    assert needed <= given.keys()


@each(OF_SCRIPTS)
def test_a_command_names_a_script_and_its_options(command):
  script = command.script
  assert (ROOT / script).is_file(), 'no such script'
  for word in command.words[: command.words.index(script)]:
    if re.fullmatch(r'[A-Z_]+=.*', word) and not word.startswith('SLURM_'):
      assert word.partition('=')[0] in doc_flags.environment(script)
  if actions := doc_flags.script_actions(script):
    first = command.words[command.words.index(script) + 1]
    assert set(first.split('|')) <= actions
  own = doc_flags.script_flags(script)
  for word in doc_commands.script_words(command):
    assert doc_flags.name_of(word) in own, f'{word} is no option'


@each([c for c in OF_MODULES if c.value('config')])
def test_a_config_exists_and_has_the_keys(command):
  config = doc_commands.config_of(command)
  if config is not None and config.stage in SYSTEMS:
    # `preset` refuses an unknown model.
    SYSTEMS[config.stage].preset(config.model, SETTING)
  elif config is not None:
    assert config.model in (*PRESETS, 'init_from')


@each(TRAINING)
def test_a_train_command_has_a_start(command):
  config = doc_commands.config_of(command)
  if config is not None:
    check_start(config)
    # A weights folder of this repository has to be there.
    if config.init_from.startswith('weights/'):
      assert (ROOT / config.init_from).is_dir()


@pytest.mark.parametrize('stage', ['autoencoder', 'stage1', 'stage2', 'joint'])
def test_the_word_after_the_colon_selects_a_shape_and_nothing_else(stage):
  def config_of(word):
    config = doc_commands.parse_config([f'--config=configs/{stage}.py:{word}'])
    return config.to_dict()

  default = config_of('bagel_7b')
  for word in (*PRESETS, 'init_from'):
    assert config_of(word) == default | {'model': word}


@pytest.mark.parametrize('stage', ['stage1', 'stage2', 'joint'])
def test_the_recipe_is_that_of_the_defaults(stage):
  config = doc_commands.parse_config([f'--config=configs/{stage}.py'])
  own = {'stage', 'model', 'tasks', 'capacity', 'trainable', 'objective'}
  defaults = default_config().to_dict()
  for key, value in config.to_dict().items():
    if key not in own:
      assert value == defaults[key], key


def leaves() -> set[str]:
  """Every key of a config, nested ones by their dotted name."""

  def names(config, prefix=''):
    for key, value in config.items():
      if hasattr(value, 'items') and value:
        yield from names(value, f'{prefix}{key}.')
      else:
        yield prefix + key

  objective = {
    f'objective.{f.name}' for f in dataclasses.fields(ObjectiveConfig)
  }
  return {*names(default_config()), *names(system_config()), *objective}


def known_keys() -> set[str]:
  """The keys, and the names of their groups such as `sampling.guidance`."""
  keys = leaves()
  return keys | {key[:i] for key in keys for i, c in enumerate(key) if c == '.'}


@every_page
def test_keys_and_flags_in_prose_exist(page):
  keys = known_keys()
  flags = doc_flags.all_flags()
  free = ('tasks', 'objective.task_weights', 'objective.term_weights')
  for line, code, _ in doc_pages.inline_code(page.read_text()):
    for key in re.findall(r'\bconfig\.([a-z0-9_]+(?:\.[a-z0-9_]+)*)', code):
      if re.search(r'\bconfig\.(json|py)\b', code):
        continue
      assert key in keys or key.rpartition('.')[0] in free, f'{line}: {code}'
    if match := re.fullmatch(r'--([a-z0-9_]+)(=\S*)?', code):
      assert match[1] in flags | OTHERS, f'{line}: {code}'


def test_the_reference_of_the_config_is_up_to_date():
  page = (ROOT / config_reference.PAGE).read_text()
  assert page == config_reference.with_tables(page), (
    'run python -m synermedgen_jax.reporting.config_reference'
  )


def test_the_reference_has_every_key():
  tables = config_reference.tables()
  assert {f'`config.{key}`' for key in leaves()} <= set(tables.split(' '))


def anchors(page) -> set[str]:
  """The anchors that GitHub gives the headings of a page."""
  text = re.sub(r'```.*?```', '', page.read_text(), flags=re.DOTALL)
  headings = re.findall(r'^#+ (.*)$', text, re.MULTILINE)
  return {
    re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-')
    for heading in headings
  }


@every_page
def test_links_lead_somewhere(page):
  text = re.sub(r'```.*?```', '', page.read_text(), flags=re.DOTALL)
  for target in re.findall(r'\]\(([^)\s]+)\)', text):
    if target.startswith(('http://', 'https://')):
      continue
    name, _, anchor = target.partition('#')
    path = (page.parent / name).resolve() if name else page
    assert path.exists(), target
    assert not anchor or anchor in anchors(path), target


@every_page
def test_paths_of_the_repository_exist(page):
  for line, code, _ in doc_pages.inline_code(page.read_text()):
    if re.fullmatch(
      r'(tests|docs|launch|configs|projects|benchmarks|weights)/[\w./]+', code
    ):
      assert (ROOT / code).exists(), f'{line}: {code}'


@every_page
def test_python_examples_compile_and_import_what_exists(page):
  for line, language, code in doc_pages.code_blocks(page.read_text()):
    if language != 'python':
      continue
    for node in ast.walk(ast.parse(code, f'{page.name}:{line}')):
      if isinstance(node, ast.ImportFrom) and node.module.startswith('syner'):
        module = importlib.import_module(node.module)
        for alias in node.names:
          assert hasattr(module, alias.name), f'{node.module}.{alias.name}'


def test_the_example_of_the_readme_runs(nano_runs, tmp_path, monkeypatch):
  (code,) = (
    code
    for _, language, code in doc_pages.code_blocks(
      (ROOT / 'README.md').read_text()
    )
    if language == 'python'
  )
  assert 'runs/demo/detail' in code
  monkeypatch.chdir(tmp_path)
  mr = np.random.default_rng(0).uniform(0, 900, (12, 10, 3))
  nib.save(nib.Nifti1Image(mr.astype(np.float32), np.eye(4)), 'mr.nii.gz')
  exec(code.replace('runs/demo/detail', str(nano_runs / 'stage2')), {})
  ct = nib.load('ct.nii.gz').get_fdata()
  assert ct.shape == mr.shape
  assert np.isfinite(ct).all()
  assert ct.min() >= -1000
  assert ct.max() <= 1000


def test_the_example_of_data_md_runs(store_path, tmp_path, monkeypatch):
  (code,) = (
    code
    for _, language, code in doc_pages.code_blocks(
      (ROOT / 'docs' / 'data.md').read_text()
    )
    if language == 'python'
  )
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'stores').mkdir()
  (tmp_path / 'stores' / 'study').symlink_to(store_path)
  exec(code.replace('10_000', '3'), {})
  lines = (tmp_path / 'bagel/cts/vlm.jsonl').read_text().splitlines()
  assert len(lines) == 3
  assert (tmp_path / 'bagel/synthesis/pairs.parquet').is_file()
