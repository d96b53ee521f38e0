"""Progress of long work on stderr: a bar on a terminal, plain lines elsewhere.

    with Bar('stage1', 1300, 'step', done=400) as bar:
      bar.update()

In a file or a pipe, a line reports the start, at most one line per half minute
the progress, and one the end: `stage1: 400/1300 steps, 12.3 steps/s, 73 s
left`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TextIO, TypeVar

from tqdm import tqdm

T = TypeVar('T')
_EVERY = 30.0  # seconds between plain lines
_PREFIXES = ('', 'k', 'M', 'G', 'T')


class Bar:
  """The progress of one piece of work; a context manager.

  Attributes:
    shown: whether anything is printed; False in all processes but one.
  """

  def __init__(
    self,
    name: str,
    total: int,
    unit: str,
    *,
    done: int = 0,
    shown: bool = True,
    delay: float = 0.0,
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
  ):
    """
    Args:
      name: begins every line.
      total: amount of work.
      unit: singular noun, such as 'step'; 'B' counts bytes.
      done: work that an earlier run did.
      shown: whether to print.
      delay: seconds before the first line; shorter work prints none.
      stream: text stream. Default: stderr.
      clock: seconds.
    """
    stream = stream or sys.stderr
    self.shown = shown
    self._view: Any = None
    if shown and stream.isatty():
      self._view = tqdm(
        total=total,
        initial=done,
        desc=name,
        unit=unit,
        unit_scale=unit == 'B',
        smoothing=0.05,
        dynamic_ncols=True,
        delay=delay,
        file=stream,
      )
    elif shown:
      self._view = _Lines(name, total, unit, done, delay, stream, clock)

  def __enter__(self) -> Bar:
    return self

  def __exit__(self, *_) -> None:
    self.close()

  def update(self, count: int = 1) -> None:
    """Adds finished work, in units."""
    if self.shown:
      self._view.update(count)

  def note(self, text: str) -> None:
    """Sets a text behind the numbers, such as the newest loss."""
    if self.shown:
      self._view.set_postfix_str(text)

  def close(self) -> None:
    """Prints the end; further calls do nothing."""
    if self.shown:
      self._view.close()


def each(
  items: Iterable[T], name: str, total: int, unit: str, **options: Any
) -> Iterator[T]:
  """Yields the items, and shows how many of them are done.

  Args:
    items: what to iterate over.
    name, total, unit: as of `Bar`.
    **options: further arguments of `Bar`.
  """
  with Bar(name, total, unit, **options) as bar:
    for item in items:
      yield item
      bar.update()


def say(text: str, stream: TextIO | None = None) -> None:
  """Prints a line to stderr, or another stream, above any bar."""
  stream = stream or sys.stderr
  if sys.stderr.isatty():
    tqdm.write(text, file=stream)
  else:
    print(text, file=stream, flush=True)


class _Lines:
  """The progress as lines of a log."""

  def __init__(self, name, total, unit, done, delay, stream, clock):
    self._name, self._total, self._unit = name, total, unit
    self._stream, self._clock = stream, clock
    self._done = self._first = self._printed = done
    self._started = self._shown_at = clock()
    self._delay, self._note, self._open = delay, '', True
    self._begun = not delay
    if self._begun:
      self._print(self._amount())

  def update(self, count: int) -> None:
    now = self._clock()
    self._done += count
    if not self._begun and now - self._started >= self._delay:
      self._begun = True
      self._shown_at = self._started
      self._print(self._amount())
    elif self._begun and now - self._shown_at >= _EVERY:
      rate = (self._done - self._printed) / (now - self._shown_at)
      parts = [self._amount(), self._rate(rate)]
      if rate > 0 and self._total >= self._done:
        left = (self._total - self._done) / rate
        parts.append(f'{duration(left)} left')
      self._print(', '.join(parts))
      self._printed, self._shown_at = self._done, now

  def set_postfix_str(self, text: str) -> None:
    self._note = text

  def close(self) -> None:
    if not (self._open and self._begun):
      return
    self._open = False
    seconds = self._clock() - self._started
    text = f'{self._amount()} in {duration(seconds)}'
    if seconds > 0:
      text += f', {self._rate((self._done - self._first) / seconds)}'
    self._print(text)

  def _print(self, text: str) -> None:
    note = f', {self._note}' if self._note else ''
    print(f'{self._name}: {text}{note}', file=self._stream, flush=True)

  def _amount(self) -> str:
    if self._unit == 'B':
      return f'{_bytes(self._done)} of {_bytes(self._total)}'
    return f'{self._done}/{self._total} {self._unit}s'

  def _rate(self, rate: float) -> str:
    if self._unit == 'B':
      return f'{_bytes(rate)}/s'
    return f'{rate:.3g} {self._unit}s/s'


def duration(seconds: float) -> str:
  """Seconds as 42 s, 12 min or 3.4 h."""
  if seconds < 120:
    return f'{seconds:.0f} s'
  if seconds < 7200:
    return f'{seconds / 60:.0f} min'
  return f'{seconds / 3600:.1f} h'


def _bytes(count: float) -> str:
  step = 0
  while count >= 1000 and step < len(_PREFIXES) - 1:
    count, step = count / 1000, step + 1
  return f'{count:.3g} {_PREFIXES[step]}B'
