"""Measures how reliably misaligned pairs of volumes are detected.

  python -m benchmarks.alignment --dataset=csv --root=TABLE.csv

Takes every pair of volumes of every subject, which should be aligned, and
moves, mirrors and turns the second volume. Prints the share of altered pairs
that are reported, the false alarms on the pairs as they are, and the seconds
per check.
"""

import collections
import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from absl import flags

from synermedgen_jax.config.command_line import run_command
from synermedgen_jax.core.modalities import Region
from synermedgen_jax.slices import alignment
from synermedgen_jax.slices.datasets import folder_cases
from synermedgen_jax.slices.tables import csv_cases
from synermedgen_jax.slices.volumes import Volume, read_volume
from synermedgen_jax.slices.windows import choose_window

_DATASET = flags.DEFINE_enum(
  'dataset', 'csv', ['csv', 'folder'], 'Layout of the input.'
)
_ROOT = flags.DEFINE_string('root', None, 'Table, or folder of the subjects.')
_EVERY = flags.DEFINE_integer('every', 1, 'Use every N-th subject.')
_FIRST = flags.DEFINE_integer(
  'first', 0, 'Number of the first subject, from 0.'
)
_MM = flags.DEFINE_list('mm', ['10', '30', '60', '100'], 'Shifts in mm.')
_MOST = flags.DEFINE_float('most_offset', 6.0, 'Threshold of a report in mm.')


def alterations(volume: Volume) -> Iterator[tuple[str, Volume]]:
  """Yields names and altered copies of a volume."""
  for mm, axis in itertools.product(map(float, _MM.value), range(3)):
    affine = volume.affine.copy()
    affine[axis, 3] += mm if axis % 2 else -mm
    yield f'moved {mm:.0f} mm', Volume(volume.data, affine)
  for axis in range(3):
    yield 'mirrored', Volume(np.flip(volume.data, axis), volume.affine)
    others = tuple(i for i in range(3) if i != axis)
    yield 'turned 180°', Volume(np.flip(volume.data, others), volume.affine)
    yield 'turned 90°', _quarter_turn(volume, axis)


def _quarter_turn(volume: Volume, axis: int) -> Volume:
  """The volume turned by 90 degrees about a world axis through its centre."""
  a, b = (i for i in range(3) if i != axis)
  turn = np.eye(4)
  turn[[a, a, b, b], [a, b, a, b]] = 0, -1, 1, 0
  centre = np.eye(4)
  centre[:3, 3] = volume.corners.mean(0)
  about = centre @ turn @ np.linalg.inv(centre)
  return Volume(volume.data, about @ volume.affine)


def main() -> None:
  read = csv_cases if _DATASET.value == 'csv' else folder_cases
  cases = read(Path(_ROOT.value), dataset='pairs', region=Region.BRAIN)
  tried, reported = collections.Counter(), collections.Counter()
  seconds = collections.Counter()
  for case in cases[_FIRST.value :: _EVERY.value]:
    volumes = {m: read_volume(path) for m, path in case.files.items()}
    for fixed, moving in itertools.combinations(volumes, 2):
      windows = tuple(
        choose_window(m, volumes[m].data) for m in (fixed, moving)
      )
      copies = [('as it is', volumes[moving]), *alterations(volumes[moving])]
      for name, altered in copies:
        begun = time.perf_counter()
        offset = alignment.estimate_offset(volumes[fixed], altered, windows)
        seconds['all'] += time.perf_counter() - begun
        tried[name] += 1
        # No overlap at all is refused as well.
        misaligned = offset is None or offset.distance > _MOST.value
        reported[name] += misaligned
        if misaligned == (name == 'as it is'):
          print(f'{case.subject} {fixed}-{moving} {name}: {offset}')
  print(f'{"pair":14} reported of tried')
  for name, count in tried.items():
    print(f'{name:14} {reported[name]:4} of {count:4}')
  altered = sum(tried.values()) - tried['as it is']
  of_altered = sum(reported.values()) - reported['as it is']
  print(f'altered: {of_altered / altered:.1%} of {altered} reported')
  print(f'{seconds["all"] / sum(tried.values()):.2f} s per check')


if __name__ == '__main__':
  run_command(main, required=['root'])
