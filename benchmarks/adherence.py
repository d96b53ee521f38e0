"""Scores of adherence of outputs that are made to fail them.

  python -m benchmarks.adherence --workdir=weights/demo --store=runs/demo/store

Takes acquired slices of the validation subjects in the place of syntheses: the
truth, the truth two slices or two pixels off, the unchanged source, another
modality of the subject, and what the reverse route would make. Prints the mean
scores over all routes that have such an output. The readers are those of
`evaluate`: the run's answers to MI, and the classifier.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator

import numpy as np
from absl import flags

from benchmarks.tables import table
from synermedgen_jax.config.command_line import run_command
from synermedgen_jax.core.choices import SPLITS
from synermedgen_jax.core.progress import each
from synermedgen_jax.evaluation.adherence import ADHERENCE, Output
from synermedgen_jax.evaluation.examiner import Examiner
from synermedgen_jax.evaluation.protocol import RouteCase, route_pairs
from synermedgen_jax.inference.workdir import Trained
from synermedgen_jax.slices.store import SliceStore

_WORKDIR = flags.DEFINE_string('workdir', None, 'Workdir of a run.')
_STORE = flags.DEFINE_string('store', None, 'Folder of the slice store.')
_SPLIT = flags.DEFINE_enum('split', 'val', SPLITS, 'Split of the subjects.')
_SLICES = flags.DEFINE_integer('slices', 3, 'Slices per case.', 1)
_SCORES = ('drift', 'control', 'direction')
# (score, metric) -> heading
_COLUMNS = {
  ('drift', 'in_plane'): 'mm in plane',
  ('drift', 'through_plane'): 'slices off source',
  ('drift', 'nearest_offset'): 'slices off truth',
  ('control', 'read'): 'read',
  ('control', 'classified'): 'classified',
  ('control', 'classified_source'): 'as the source',
  ('direction', 'given'): 'position',
  ('direction', 'turn'): 'turn',
}


def _outputs(
  store: SliceStore, item: RouteCase, right: Output
) -> Iterator[tuple[str, Output]]:
  """Name and output, of each kind that the case has."""

  def made(synthesis, swapped):
    return dataclasses.replace(
      right, synthesis=synthesis, again=lambda **changes: swapped
    )

  source, truth = right.source_slices, right.truth_slices
  last = item.case.usable.stop - 1
  further = np.where(
    item.indices + 2 <= last, item.indices + 2, item.indices - 2
  )
  yield 'the truth', made(truth, source)
  yield 'two slices off', made(right.truth[further], source)
  yield 'two pixels off', made(np.roll(truth, 2, axis=1), source)
  yield 'the unchanged source', made(source, source)
  ends = {*item.route.sources, item.route.target}
  for other in item.case.modalities:
    if other not in ends:
      images = store.read_volume(item.case.id, other)[item.indices]
      yield 'another modality', made(images, source)
      break
  yield 'the reverse route', made(source, truth)


def main() -> None:
  trained, store = Trained.load(_WORKDIR.value), SliceStore.open(_STORE.value)
  pairs = [*route_pairs(store.split(_SPLIT.value), slices=_SLICES.value)]
  examiner = Examiner(trained, trained.synthesiser(), store, _SCORES)
  values = collections.defaultdict(list)
  for pair in each(pairs, 'examine', len(pairs), 'pair'):
    item = RouteCase.read(store, pair)
    right = examiner.output(item, item.truth)
    for name, output in _outputs(store, item, right):
      scores = {n: ADHERENCE[n].function(output) for n in _SCORES}
      values[name].append([scores[s][metric] for s, metric in _COLUMNS])
  rows = [
    [name, str(len(rows)), *(f'{x:.2f}' for x in np.mean(rows, axis=0))]
    for name, rows in values.items()
  ]
  print(table(['output', 'pairs', *_COLUMNS.values()], rows))


if __name__ == '__main__':
  run_command(main, required=['workdir', 'store'])
