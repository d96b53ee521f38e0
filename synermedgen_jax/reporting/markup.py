"""HTML elements of the report: escaped text, tables, embedded pictures.

All text goes through `tag`, which escapes everything that is not `Html`.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

_CSS = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #59636e;
  --line: #d5dae0; --paper: #fff; --card: #f4f6f8; --win: #00795a; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8ebee; --soft: #9aa4ae;
  --line: #3a424a; --paper: #14181c; --card: #1f252b; --win: #4cc79f; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 66rem; padding: 1.2rem 1rem 4rem;
  color: var(--ink); background: var(--paper);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .2rem; line-height: 1.2; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .6rem; padding-top: .6rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
p { margin: .4rem 0; max-width: 46rem; }
.soft { color: var(--soft); }
.cards { display: grid; gap: .7rem; margin: 1rem 0;
  grid-template-columns: repeat(auto-fit, minmax(9.6rem, 1fr)); }
.card { background: var(--card); border-radius: .5rem; padding: .7rem .9rem; }
.card b { display: block; font-size: 1.7rem; line-height: 1.25;
  font-variant-numeric: tabular-nums; }
.card span { display: block; font-size: .85rem; color: var(--soft); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .28rem .7rem .28rem 0; text-align: left;
  vertical-align: top; border-bottom: 1px solid var(--line); }
th { font-weight: 600; white-space: nowrap; }
th:first-child, td:first-child { position: sticky; left: 0;
  background: var(--paper); white-space: nowrap; }
.n { text-align: right; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
.win { color: var(--win); font-weight: 600; white-space: nowrap; }
tfoot td { font-weight: 600; }
img { display: block; max-width: 100%; height: auto; background: #fff;
  border-radius: .4rem; margin: .6rem 0; }
details { border-bottom: 1px solid var(--line); padding: .35rem 0; }
summary { cursor: pointer; }
code { font: .85em ui-monospace, Menlo, Consolas, monospace;
  overflow-wrap: anywhere; }
.note { background: var(--card); border-left: 4px solid #e69f00;
  padding: .5rem .9rem; border-radius: .3rem; margin: .6rem 0; }
""".strip()


class Html(str):
  """A string of HTML, which is not escaped again."""

  __slots__ = ()


def tag(name: str, *children: object, **attributes: str) -> Html:
  """Returns an element; attributes, and children not `Html`, are escaped.

  tag('p', 'a < b', cls='soft') -> '<p class="soft">a &lt; b</p>'
  """
  inner = join(children)
  attributes_text = ''.join(
    f' {key.replace("cls", "class")}="{html.escape(str(value))}"'
    for key, value in attributes.items()
  )
  return Html(f'<{name}{attributes_text}>{inner}</{name}>')


def join(children: Iterable[object]) -> Html:
  """Concatenates children, escaped unless they are `Html`."""
  return Html(
    ''.join(
      child if isinstance(child, Html) else html.escape(str(child))
      for child in children
    )
  )


def document(title: str, sections: Iterable[str]) -> str:
  """Returns a complete HTML file; sections are not escaped."""
  return (
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    f'{tag("title", title)}\n<style>\n{_CSS}\n</style>\n</head>\n<body>\n'
    + '\n'.join(sections)
    + '\n</body>\n</html>\n'
  )


def table(
  head: Sequence[str],
  rows: Iterable[Sequence[str]],
  foot: Sequence[str] = (),
  *,
  left: Sequence[int] = (0,),
) -> Html:
  """Returns a table; columns not in `left` are right-aligned numbers."""

  def line(cells: Sequence[str], kind: str) -> Html:
    return tag(
      'tr',
      *(
        tag(kind, cell) if i in left else tag(kind, cell, cls='n')
        for i, cell in enumerate(cells)
      ),
    )

  parts = [tag('thead', line(head, 'th'))] if head else []
  parts.append(tag('tbody', *(line(row, 'td') for row in rows)))
  if foot:
    parts.append(tag('tfoot', line(foot, 'td')))
  return tag('div', tag('table', *parts), cls='scroll')


def picture(words: str, png: bytes) -> Html:
  """Embeds a PNG file as an image with the alternative text `words`."""
  data = base64.b64encode(png).decode()
  return Html(
    f'<img alt="{html.escape(words)}" src="data:image/png;base64,{data}">'
  )


def facts(values: Mapping[str, Any]) -> Html:
  """Returns a table of nested values, with keys joined by dots."""
  rows = [
    [tag('code', key), value if value else '–'] for key, value in _flat(values)
  ]
  return table((), rows, left=(0, 1))


def _flat(values: Any, prefix: str = '') -> Iterator[tuple[str, str]]:
  if isinstance(values, Mapping) and values:
    for key, value in values.items():
      yield from _flat(value, f'{prefix}.{key}' if prefix else str(key))
  elif isinstance(values, list):
    yield prefix, ', '.join(map(str, values))
  else:
    yield prefix, '' if values in ({}, None) else str(values)
