"""Writes the tables of config keys in docs/reference.md.

  python -m synermedgen_jax.reporting.config_reference

Replaces the text between two comments of the page with tables of the keys in
`config/defaults.py` and the fields of `ObjectiveConfig`.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from synermedgen_jax.config.defaults import KEYS, SYSTEM_KEYS, Key
from synermedgen_jax.training.objectives import ObjectiveConfig

PAGE = Path('docs/reference.md')
BEGIN = '<!-- config keys: begin -->'
END = '<!-- config keys: end -->'


def with_tables(page: str) -> str:
  """Replaces the tables of a page.

  Args:
    page: Markdown with the comments `BEGIN` and `END`.

  Raises:
    ValueError: a comment is missing.
  """
  before, begin, rest = page.partition(BEGIN)
  _, end, after = rest.partition(END)
  if not begin or not end:
    raise ValueError(f'{PAGE}: expected the comments {BEGIN} and {END}.')
  return f'{before}{begin}\n\n{tables()}\n\n{end}{after}'


def tables() -> str:
  """Formats the config keys as Markdown, one table per section."""
  parts = [f'### {heading}\n\n{_table(keys)}' for heading, keys in KEYS.items()]
  parts.append(f'### Weights of the losses\n\n{_table(_objective_keys())}')
  parts.append(
    '### Systems of the arena\n\nConfigs in `configs/baselines` have these '
    f'keys beside those above that apply to them.\n\n{_table(SYSTEM_KEYS)}'
  )
  return '\n\n'.join(parts)


def _table(keys: Sequence[Key]) -> str:
  rows = [('key', 'default', 'unit', 'meaning'), ('---',) * 4]
  rows += [
    (f'`config.{key.name}`', f'`{_value(key.default)}`', key.unit, key.meaning)
    for key in keys
  ]
  return '\n'.join(f'| {" | ".join(row)} |' for row in rows)


def _value(value: Any) -> str:
  return "''" if value == '' else str(value)


def _objective_keys() -> Iterable[Key]:
  """The fields of `ObjectiveConfig`; their meanings are in its docstring."""
  text = inspect.getdoc(ObjectiveConfig).partition('Attributes:\n')[2]
  meanings = {}
  for names, meaning in re.findall(
    r'^  (\w[\w, ]*): (.*(?:\n    .*)*)', text, re.MULTILINE
  ):
    meaning = ' '.join(meaning.split())
    meaning = meaning[0].upper() + meaning[1:]
    meanings |= dict.fromkeys(names.split(', '), meaning)
  for field in dataclasses.fields(ObjectiveConfig):
    default = field.default
    if default is dataclasses.MISSING:
      default = field.default_factory()
    yield Key(f'objective.{field.name}', default, meanings[field.name])


if __name__ == '__main__':
  PAGE.write_text(with_tables(PAGE.read_text('utf-8')), 'utf-8')
  print(f'{PAGE}: written.')
