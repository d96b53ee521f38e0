"""Flags of commands and scripts, read from their sources."""

from __future__ import annotations

import ast
import dataclasses
import functools
import re
from collections.abc import Iterator
from pathlib import Path

from doc_pages import ROOT, docstrings, headers, tree

from synermedgen_jax import cli

# Defined by absl for every command.
_OF_ALL = ('help',)


def name_of(word: str) -> str:
  return word.removeprefix('--').partition('=')[0]


@functools.cache
def subcommands() -> dict[str, str]:
  """Subcommand of `synermedgen` -> module of the package.

  For a group such as `export`, this is one of its modules.
  """
  names = {
    name: next(iter(module.values())) if isinstance(module, dict) else module
    for name, module in cli.COMMANDS.items()
  }
  return names | {name.replace('-', '_'): m for name, m in names.items()}


def split_subcommand(words: tuple[str, ...]) -> tuple[str, list[str]]:
  """The module and the arguments of `synermedgen NAME ...`."""
  name, *rest = words[1:]
  module = cli.COMMANDS.get(name.replace('_', '-'), name)
  if isinstance(module, dict):
    second, *rest = rest
    module = module[second]
  return f'synermedgen_jax.{module}', rest


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
    short: its letter, or ''.
  """

  kind: str
  choices: tuple[str, ...] = ()
  required: bool = False
  short: str = ''

  def problem(self, value: str | None) -> str:
    """The error in `--flag=value`; '' = none."""
    if value is None:
      return '' if self.kind == 'bool' else 'needs a value'
    if is_placeholder(value):
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


def is_placeholder(value: str) -> bool:
  return (
    value in ('', '...') or re.fullmatch(r'[A-Z][A-Z0-9_]*', value) is not None
  )


@functools.cache
def defined_flags(module: str) -> dict[str, Flag]:
  """The flags of a command, read from its source and what it imports."""
  path = source_of(module)
  defined: dict[str, Flag] = {}
  for file in [path, *_imports_with_flags(path)]:
    for call in _calls(tree(file)):
      defined.update(_absl_flag(call) or _argparse_flag(call))
  switches = [name for name, flag in defined.items() if flag.kind == 'bool']
  defined |= {f'no{name}': Flag('bool') for name in switches}
  for name in _required(tree(path)):
    defined[name] = dataclasses.replace(defined[name], required=True)
  return defined | dict.fromkeys(_OF_ALL, Flag('bool'))


def long_form(module: str, words: list[str]) -> list[str]:
  """Arguments with `-i X` written as `--root=X`."""
  letters = {f'-{f.short}': n for n, f in defined_flags(module).items()}
  words, result = list(words), []
  while words:
    word = words.pop(0)
    if word in letters and word != '-' and words:
      word = f'--{letters[word]}={words.pop(0)}'
    result.append(word)
  return result


def _imports_with_flags(path: Path) -> list[Path]:
  """The files from which names that define flags are imported."""
  sources = {
    source_of(node.module)
    for node in ast.walk(tree(path))
    if isinstance(node, ast.ImportFrom) and node.module
    if any('flag' in alias.name for alias in node.names)
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
  options = {k.arg: k.value for k in call.keywords}
  required = getattr(options.get('required'), 'value', False)
  short = getattr(options.get('short_name'), 'value', '')
  return {call.args[0].value: Flag(kind, choices, required, short)}


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


def excusing(module: str) -> str:
  """The switch with which a command requires no flag; '' = it has none."""
  for call in _calls(tree(source_of(module))):
    if getattr(call.func, 'id', '') == 'run_command':
      for keyword in call.keywords:
        if keyword.arg == 'unless':
          return ast.literal_eval(keyword.value)
  return ''


def _calls(tree: ast.Module) -> Iterator[ast.Call]:
  return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


@functools.cache
def script_flags(script: str) -> set[str]:
  """The options that a script reads, or passes on to its last command."""
  text = (ROOT / script).read_text()
  cases = re.findall(r'^\s*(--\w[\w=*| -]*)\)', text, re.MULTILINE)
  words = [w for case in cases for w in case.split('|')]
  words += re.findall(r'"\$\{1:-\}" = (--\w+)', text)
  own = r'^python -m ((?:synermedgen_jax|projects)\.[\w.]+) .*"\$@"$'
  passed = re.findall(own, text, re.MULTILINE)
  flags = {name for module in passed for name in defined_flags(module)}
  return flags | {name_of(w.strip().rstrip('*')) for w in words}


def all_flags() -> set[str]:
  """The flags of all commands and the options of all scripts."""
  names = set()
  for path in docstrings():
    module = '.'.join(path.relative_to(ROOT).with_suffix('').parts)
    names |= defined_flags(module.removesuffix('.__main__')).keys()
  for path in headers():
    names |= script_flags(str(path.relative_to(ROOT)))
  return names


def script_actions(script: str) -> set[str]:
  """The words that a script takes first, such as `up` and `down`."""
  text = (ROOT / script).read_text()
  match = re.search(r'\$action =~ \^\(([\w|]+)\)\$', text)
  return set(match[1].split('|')) if match else set()


def environment(script: str) -> set[str]:
  """The variables with a default in a script or in what it sources."""
  files = [ROOT / script, ROOT / 'launch' / 'setup.sh']
  text = ''.join(file.read_text() for file in files)
  return set(re.findall(r'\$\{(\w+):-', text))
