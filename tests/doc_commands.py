"""Commands, links and code blocks of the docs, and what commands accept.

Nothing here runs a command: flags are read from the sources with `ast`.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

ROOT = Path(__file__).parents[1]
TRAIN = 'synermedgen_jax.main'
_TRAIN_SCRIPTS = ('launch/gpu.sh', 'launch/tpu_pod.sh')
_STARTS = ('python', 'bash', 'sbatch', 'synermedgen', 'pytest')
_PACKAGES = ('synermedgen_jax.', 'benchmarks.', 'projects.')
# Defined by absl for every command.
_OF_ALL = ('help',)


@dataclasses.dataclass(frozen=True)
class Command:
  """A command line of a page.

  Attributes:
    where: the page and the line, for messages.
    words: as a shell splits them.
    block: it stands in a code block or a table, so it has to be complete.
  """

  where: str
  words: tuple[str, ...]
  block: bool

  def __str__(self) -> str:
    return f'{self.where}: {shlex.join(self.words)}'

  @property
  def complete(self) -> bool:
    """It can be copied: it stands in a block and leaves nothing to say."""
    return self.block and not {'...', '(the'} & set(self.words)

  @property
  def script(self) -> str:
    """The script of launch/ or of a project that it calls, or ''."""
    return next((w for w in self.words if w.endswith('.sh')), '')

  @property
  def module(self) -> str:
    """The module that it runs, or ''."""
    words = [w for w in self.words if not re.fullmatch(r'[A-Z_]+=.*', w)]
    match words:
      case ['python', '-m', module, *_] if module.startswith(_PACKAGES):
        return module
      case ['synermedgen', name, *_] if not name.startswith('-'):
        return module_of_subcommand(name)
    return TRAIN if self.trains else ''

  @property
  def trains(self) -> bool:
    """It is a train command, by itself or by a script."""
    if self.script:
      pod = self.script.endswith('tpu_pod.sh')
      return self.script in _TRAIN_SCRIPTS and (
        not pod or 'train' in self.words
      )
    return TRAIN in self.words or self.words[:2] == ('synermedgen', 'train')

  @property
  def arguments(self) -> list[str]:
    """The arguments of the module; those of a script's own are left out."""
    words = list(self.words)
    if self.script:
      rest = words[words.index(self.script) + 1 :]
      if '--' in rest:
        return rest[rest.index('--') + 1 :]
      return [w for w in rest if name_of(w) not in script_flags(self.script)]
    if words[0] == 'synermedgen':
      return words[2:]
    return words[words.index(self.module) + 1 :]

  def value(self, flag: str) -> str:
    """The value of `--flag=value`, or ''."""
    prefix = f'--{flag}='
    found = [w for w in self.arguments if w.startswith(prefix)]
    return found[-1].removeprefix(prefix) if found else ''


def name_of(word: str) -> str:
  return word.removeprefix('--').partition('=')[0]


def pages() -> list[Path]:
  """The Markdown files that users read."""
  return [
    *(ROOT / n for n in ('README.md', 'CONTRIBUTING.md')),
    *sorted((ROOT / 'docs').glob('*.md')),
    *sorted((ROOT / 'projects').glob('*/README.md')),
    *sorted((ROOT / 'weights').glob('*/README.md')),
  ]


def pages_text() -> dict[Path, str]:
  return {page: page.read_text() for page in pages()}


def docstrings() -> dict[Path, str]:
  """The docstrings of the configs and of the commands."""
  files = [
    *(ROOT / 'configs').rglob('*.py'),
    *(ROOT / 'projects').rglob('*.py'),
    *(ROOT / 'benchmarks').rglob('*.py'),
    *(ROOT / 'synermedgen_jax').glob('*.py'),
  ]
  found = {p: ast.get_docstring(_tree(p)) for p in sorted(files)}
  return {path: text for path, text in found.items() if text}


def headers() -> dict[Path, str]:
  """The comments at the top of the scripts, without `# `."""
  found = {}
  for folder in ('launch', 'projects'):
    for path in sorted((ROOT / folder).rglob('*.sh')):
      lines = path.read_text().splitlines()[1:]
      end = next(i for i, line in enumerate(lines) if line[:2] != '# ')
      found[path] = '\n'.join(line[2:] for line in lines[:end])
  return found


def code_blocks(text: str) -> Iterator[tuple[int, str, str]]:
  """(line, language, code) of fenced and indented blocks."""
  lines = text.splitlines()
  i = 0
  while i < len(lines):
    if fence := re.match(r'( *)```(\w*)', lines[i]):
      end = next(
        j for j in range(i + 1, len(lines)) if lines[j].strip() == '```'
      )
      code = [line.removeprefix(fence[1]) for line in lines[i + 1 : end]]
      yield i + 2, fence[2], '\n'.join(code)
      i = end + 1
    elif re.match(r' {2,}\S', lines[i]) and (
      i == 0 or not lines[i - 1].strip()
    ):
      start = i
      while i < len(lines) and (lines[i][:2] == '  ' or not lines[i].strip()):
        i += 1
      yield start + 1, '', '\n'.join(line.strip() for line in lines[start:i])
    else:
      i += 1


def _joined(code: str) -> Iterator[tuple[int, str]]:
  """(line, text) with continuation lines joined and comments left out."""
  start, text = 0, ''
  for i, line in enumerate(code.splitlines()):
    if not text:
      start = i
    text += line.strip()
    if text.endswith('\\'):
      text = text[:-1].rstrip() + ' '
      continue
    yield start, text
    text = ''


def inline_code(text: str) -> Iterator[tuple[int, str, bool]]:
  """(line, code, in a table) of what stands between backticks."""
  for line, _, code in code_blocks(text):  # blank them out
    lines = text.splitlines()
    for i in range(line - 1, line - 1 + len(code.splitlines())):
      lines[i] = ''
    text = '\n'.join(lines)
  for match in re.finditer(r'(?<!`)`([^`]+)`(?!`)', text):
    if '\n\n' in match[1]:
      continue
    line = text.count('\n', 0, match.start()) + 1
    in_table = text.splitlines()[line - 1].startswith('|')
    yield line, ' '.join(match[1].split()), in_table


def commands(text: str, where: str) -> Iterator[Command]:
  """The commands of a page, of a docstring or of a script's header.

  Args:
    text: Markdown, or what reads alike.
    where: name of the page, for messages.
  """
  for start, language, code in code_blocks(text):
    if language in ('', 'bash', 'sh'):
      for line, command in _joined(code):
        yield from _command(f'{where}:{start + line}', command, True)
  for line, code, in_table in inline_code(text):
    yield from _command(f'{where}:{line}', code, in_table)


def _command(where: str, text: str, block: bool) -> Iterator[Command]:
  text = text.removeprefix('Usage: ')
  text = re.sub(r'\[([^\]]*)\]', r'\1', text)  # what is optional
  try:
    words = shlex.split(text, comments=True)
  except ValueError:  # prose with an apostrophe
    return
  bare = [w for w in words if not re.fullmatch(r'[A-Z_]+=\S*', w)]
  if len(bare) < 2:
    return
  names = set(subcommands())
  if bare[0] in names and bare[1].startswith('--'):
    words = ['synermedgen', *words]  # "`prepare --dataset=folder`" in prose
    block = False
  elif bare[0] not in _STARTS:
    return
  if bare[0] == 'python' and bare[1] != '-m':
    return
  yield Command(where, tuple(words), block)


@functools.cache
def all_commands() -> list[Command]:
  """The commands of every page, docstring and script's header, once each."""
  found = [
    command
    for path, text in (pages_text() | docstrings()).items()
    for command in commands(text, str(path.relative_to(ROOT)))
  ]
  for path, text in headers().items():
    where = str(path.relative_to(ROOT))
    for line, words in _joined(text):
      found += _command(f'{where}:{line + 2}', words, True)
  return list({(c.words, c.block): c for c in reversed(found)}.values())[::-1]


def plans() -> dict[str, list[str]]:
  """What pages and docstrings train: name -> arguments about the config.

  Train commands, and configs that are named with a model, such as
  `configs/stage1.py:base_1b`.
  """
  found = {}
  for command in all_commands():
    if command.block and command.trains and config_of(command) is not None:
      found[str(command)] = config_arguments(command)
  for path, text in (pages_text() | docstrings()).items():
    for line, code, _ in inline_code(text):
      if re.fullmatch(r'configs/[\w/]+\.py:\w+', code):
        name = f'{path.relative_to(ROOT)}:{line}: {code}'
        found[name] = [f'--config={code}']
  return found


@functools.cache
def subcommands() -> dict[str, str]:
  """Subcommand of `synermedgen` -> module of the package."""
  tree = _tree(ROOT / 'synermedgen_jax' / 'cli.py')
  for node in tree.body:
    if isinstance(node, ast.Assign) and node.targets[0].id == 'COMMANDS':
      names = ast.literal_eval(node.value)
      return names | {name.replace('-', '_'): m for name, m in names.items()}
  raise ValueError('cli.py has no COMMANDS.')


def module_of_subcommand(name: str) -> str:
  return f'synermedgen_jax.{subcommands().get(name, name)}'


def source_of(module: str) -> Path | None:
  """The file of a module of this repository; None = there is none."""
  path = ROOT / module.replace('.', '/')
  candidates = (path.with_suffix('.py'), path / '__main__.py')
  return next((c for c in candidates if c.is_file()), None)


@dataclasses.dataclass(frozen=True)
class Flag:
  """A flag as its definition states it.

  Attributes:
    kind: 'string', 'integer', 'float', 'bool', 'list', 'enum', 'config_file'.
    choices: of an enum, where they are written out.
    required: the command refuses to run without it.
  """

  kind: str
  choices: tuple[str, ...] = ()
  required: bool = False

  def problem(self, value: str | None) -> str:
    """What is wrong with `--flag=value`; '' = nothing."""
    if value is None:
      return '' if self.kind == 'bool' else 'needs a value'
    if _is_placeholder(value):
      return ''
    try:
      if self.kind == 'integer':
        int(value)
      if self.kind == 'float':
        float(value)
      if self.kind == 'bool' and value not in ('True', 'False'):
        return f'{value} is neither True nor False'
    except ValueError:
      return f'{value} is no {self.kind}'
    if self.choices and value not in self.choices:
      return f'{value} is none of {self.choices}'
    return ''


def _is_placeholder(value: str) -> bool:
  return (
    value in ('', '...') or re.fullmatch(r'[A-Z][A-Z0-9_]*', value) is not None
  )


@functools.cache
def defined_flags(module: str) -> dict[str, Flag]:
  """The flags of a command, read from its source and what it imports."""
  path = source_of(module)
  found: dict[str, Flag] = {}
  for file in [path, *_imports_with_flags(path)]:
    for call in _calls(_tree(file)):
      found.update(_absl_flag(call) or _argparse_flag(call))
  for name in _required(_tree(path)):
    found[name] = dataclasses.replace(found[name], required=True)
  return found | dict.fromkeys(_OF_ALL, Flag('bool'))


def _imports_with_flags(path: Path) -> list[Path]:
  """The files from which names that define flags are imported."""
  sources = {
    source_of(node.module)
    for node in ast.walk(_tree(path))
    if isinstance(node, ast.ImportFrom) and node.module
    if any('flags' in alias.name for alias in node.names)
  }
  return sorted(sources - {None})


def _absl_flag(call: ast.Call) -> dict[str, Flag]:
  function = getattr(call.func, 'attr', '')
  if not function.startswith('DEFINE_'):
    return {}
  kind = function.removeprefix('DEFINE_').replace('boolean', 'bool')
  choices = ()
  if kind == 'enum':
    try:
      choices = tuple(ast.literal_eval(call.args[2]))
    except ValueError:
      kind = 'string'  # a table's names
  required = any(
    k.arg == 'required' and k.value.value is True for k in call.keywords
  )
  return {call.args[0].value: Flag(kind, choices, required)}


def _argparse_flag(call: ast.Call) -> dict[str, Flag]:
  if getattr(call.func, 'attr', '') != 'add_argument':
    return {}
  name = call.args[0].value
  options = {k.arg: k.value for k in call.keywords}
  kind = getattr(options.get('type'), 'id', 'str')
  kind = {'int': 'integer', 'float': 'float'}.get(kind, 'string')
  if 'store_true' in ast.dump(options.get('action', ast.Constant(''))):
    kind = 'bool'
  return {name_of(name): Flag(kind)} if name.startswith('--') else {}


def _required(tree: ast.Module) -> list[str]:
  """Names in `mark_flags_as_required` and in `run_command(required=...)`."""
  for call in _calls(tree):
    if getattr(call.func, 'attr', '') == 'mark_flags_as_required':
      return ast.literal_eval(call.args[0])
    if getattr(call.func, 'id', '') == 'run_command':
      for keyword in call.keywords:
        if keyword.arg == 'required':
          return ast.literal_eval(keyword.value)
  return []


def _calls(tree: ast.Module) -> Iterator[ast.Call]:
  return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


@functools.cache
def script_flags(script: str) -> set[str]:
  """The options of its own that a script reads."""
  text = (ROOT / script).read_text()
  cases = re.findall(r'^\s*(--\w[\w=*| -]*)\)', text, re.MULTILINE)
  words = [w for case in cases for w in case.split('|')]
  words += re.findall(r'"\$\{1:-\}" = (--\w+)', text)
  return {name_of(w.strip().rstrip('*')) for w in words}


def script_words(command: Command) -> list[str]:
  """The options in a command that are for the script itself."""
  words = list(command.words[command.words.index(command.script) + 1 :])
  if '--' in words:
    words = words[: words.index('--')]
  elif command.trains:
    return []  # the others are those of the train command
  return [w for w in words if w.startswith('--')]


def all_flags() -> set[str]:
  """The flags of all commands and the options of all scripts."""
  found = set()
  for path in docstrings():
    module = '.'.join(path.relative_to(ROOT).with_suffix('').parts)
    found |= defined_flags(module.removesuffix('.__main__')).keys()
  for path in headers():
    found |= script_flags(str(path.relative_to(ROOT)))
  return found


def script_actions(script: str) -> set[str]:
  """The words that a script takes first, such as `up` and `down`."""
  text = (ROOT / script).read_text()
  found = re.search(r'\$action =~ \^\(([\w|]+)\)\$', text)
  return set(found[1].split('|')) if found else set()


def environment(script: str) -> set[str]:
  """The variables with a default in a script or in what it sources."""
  files = [ROOT / script, ROOT / 'launch' / 'setup.sh']
  text = ''.join(file.read_text() for file in files)
  return set(re.findall(r'\$\{(\w+):-', text))


def config_of(command: Command) -> ConfigDict | None:
  """The config of a command, by its own parser; None = it names no file.

  Raises:
    Exception: the file, the word after the colon, a key, or the type of a
      value is wrong.
  """
  value = command.value('config')
  if _is_placeholder(value):
    return None
  return parse_config(config_arguments(command))


def config_arguments(command: Command) -> list[str]:
  """`--config=FILE` and the keys that are set, for `parse_config`."""
  keys = [
    re.sub(r'=SEED$', '=0', word)
    for word in command.arguments
    if name_of(word).startswith('config.')
  ]
  return [f'--config={command.value("config")}', *keys]


def parse_config(arguments: list[str]) -> ConfigDict:
  """What `--config=FILE --config.KEY=VALUE ...` mean to a command."""
  values = flags.FlagValues()
  argv = [
    'command',
    *(w.replace('=configs', f'={ROOT}/configs') for w in arguments),
  ]
  holder = config_flags.DEFINE_config_file(
    'config', None, flag_values=values, sys_argv=argv
  )
  values(argv)
  return holder.value


@functools.cache
def _tree(path: Path) -> ast.Module:
  return ast.parse(path.read_text('utf-8'))
