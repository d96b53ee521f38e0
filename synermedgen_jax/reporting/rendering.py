"""HTML pages from the templates in `templates`.

Every page extends `base.html`, which has the style sheet, the switch between
light and dark, and the table of contents. `macros.html` has tables, notes and
figures. Text is escaped unless it is `Markup`; a name that a template lacks is
an error.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

_FOLDER = Path(__file__).with_name('templates')


def render(template: str, **values: Any) -> Markup:
  """Returns a template filled with values; HTML that is not escaped again.

  Args:
    template: name of a file in `templates`.
    **values: the names that the template uses.

  Raises:
    jinja2.UndefinedError: a name is missing.
  """
  return Markup(environment().get_template(template).render(values))


def asset(name: str, folder: Path = _FOLDER) -> Markup:
  """Returns a style sheet or script of `templates` as it is."""
  return Markup((folder / name).read_text('utf-8'))


def flat(values: Any, prefix: str = '') -> Iterator[tuple[str, str]]:
  """Yields nested values as (key, text), with keys joined by dots."""
  if isinstance(values, Mapping) and values:
    for key, value in values.items():
      yield from flat(value, f'{prefix}.{key}' if prefix else str(key))
  elif isinstance(values, list):
    yield prefix, ', '.join(map(str, values))
  else:
    yield prefix, '' if values in ({}, None) else str(values)


@functools.cache
def environment(folder: Path = _FOLDER) -> jinja2.Environment:
  """The environment of the templates in a folder, besides those of reports.

  Scripts of a page have the attribute `nonce` if the page is rendered with
  one, for a server that allows no other script.
  """
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader([folder, _FOLDER]),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
  )
  environment.globals |= {'asset': asset, 'nonce': ''}
  environment.filters['flat'] = flat
  return environment
