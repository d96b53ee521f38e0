"""Commands in the docs, parsed but not run."""

from __future__ import annotations

import dataclasses
import functools
import re
import shlex
from collections.abc import Iterator

from absl import flags
from doc_flags import (
  is_placeholder,
  long_form,
  name_of,
  script_flags,
  split_subcommand,
  subcommands,
)
from doc_pages import (
  ROOT,
  code_blocks,
  docstrings,
  headers,
  inline_code,
  joined,
  pages_text,
)
from ml_collections import ConfigDict, config_flags

TRAIN = 'synermedgen_jax.main'
_TRAIN_SCRIPTS = ('launch/gpu.sh', 'launch/tpu_pod.sh')
_STARTS = ('python', 'bash', 'sbatch', 'synermedgen', 'pytest')
_PACKAGES = ('synermedgen_jax.', 'benchmarks.', 'projects.')


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
    if words[-1].rpartition('.')[2] == 'NAME':
      return ''  # any of them
    match words:
      case ['python', '-m', module, *_] if module.startswith(_PACKAGES):
        return module
      case ['synermedgen', name, *_] if not name.startswith('-'):
        return split_subcommand(words)[0]
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
      return long_form(*split_subcommand(words))
    return long_form(self.module, words[words.index(self.module) + 1 :])

  def value(self, flag: str) -> str:
    """The value of `--flag=value`, or ''."""
    prefix = f'--{flag}='
    values = [w for w in self.arguments if w.startswith(prefix)]
    return values[-1].removeprefix(prefix) if values else ''


def commands(text: str, where: str) -> Iterator[Command]:
  """The commands of a page, of a docstring or of a script's header.

  Args:
    text: Markdown, or text in a similar format.
    where: name of the page, for messages.
  """
  for start, language, code in code_blocks(text):
    if language in ('', 'bash', 'sh'):
      for line, command in joined(code):
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
  documented = [
    command
    for path, text in (pages_text() | docstrings()).items()
    for command in commands(text, str(path.relative_to(ROOT)))
  ]
  for path, text in headers().items():
    where = str(path.relative_to(ROOT))
    for line, words in joined(text):
      documented += _command(f'{where}:{line + 2}', words, True)
  return list({(c.words, c.block): c for c in reversed(documented)}.values())[
    ::-1
  ]


def plans() -> dict[str, list[str]]:
  """Trained configs in pages and docstrings: name -> arguments of the config.

  Train commands, and configs that are named with a model, such as
  `configs/stage1.py:base_1b`.
  """
  by_name = {}
  for command in all_commands():
    if command.block and command.trains and config_of(command) is not None:
      by_name[str(command)] = config_arguments(command)
  for path, text in (pages_text() | docstrings()).items():
    for line, code, _ in inline_code(text):
      if re.fullmatch(r'configs/[\w/]+\.py:\w+', code):
        name = f'{path.relative_to(ROOT)}:{line}: {code}'
        by_name[name] = [f'--config={code}']
  return by_name


def script_words(command: Command) -> list[str]:
  """The options in a command that are for the script itself."""
  words = list(command.words[command.words.index(command.script) + 1 :])
  if '--' in words:
    words = words[: words.index('--')]
  elif command.trains:
    return []  # the others are those of the train command
  return [w for w in words if w.startswith('--')]


def config_of(command: Command) -> ConfigDict | None:
  """The config of a command, by its own parser; None = it names no file.

  Raises:
    Exception: the file, the word after the colon, a key, or the type of a
      value is wrong.
  """
  value = command.value('config')
  if is_placeholder(value):
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
  """The config of `--config=FILE --config.KEY=VALUE ...` in a command."""
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
