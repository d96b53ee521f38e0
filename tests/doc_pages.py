"""Pages for users, and the code in them."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]


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
  texts = {p: ast.get_docstring(tree(p)) for p in sorted(files)}
  return {path: text for path, text in texts.items() if text}


def headers() -> dict[Path, str]:
  """The comments at the top of the scripts, without `# `."""
  texts = {}
  for folder in ('launch', 'projects'):
    for path in sorted((ROOT / folder).rglob('*.sh')):
      lines = path.read_text().splitlines()[1:]
      end = next(i for i, line in enumerate(lines) if line[:2] != '# ')
      texts[path] = '\n'.join(line[2:] for line in lines[:end])
  return texts


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


def joined(code: str) -> Iterator[tuple[int, str]]:
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


@functools.cache
def tree(path: Path) -> ast.Module:
  return ast.parse(path.read_text('utf-8'))
