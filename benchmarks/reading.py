"""Measures how well a run reads which modality a volume shows.

  python -m benchmarks.reading --workdir=runs/demo/detail \\
      --store=runs/demo/store --root=runs/demo/phantoms

Reads every test volume of the store under every claim: as its own modality, and
as each other one of the store. Prints what the model read, and the share of
claims that it doubts. A claim is refused if the values are not in the unit of
the claimed modality (`slices.units`), or if another family is read; with
another modality of the family it is doubted.
"""

import collections
from pathlib import Path

from absl import flags

from benchmarks.tables import table
from synermedgen_jax.config.command_line import run_command
from synermedgen_jax.core.modalities import Modality
from synermedgen_jax.core.progress import each
from synermedgen_jax.inference.reading import Doubt, family_of, read_modality
from synermedgen_jax.inference.workdir import Trained
from synermedgen_jax.slices.store import SliceStore
from synermedgen_jax.slices.units import suspicious_units
from synermedgen_jax.slices.volumes import read_volume

_WORKDIR = flags.DEFINE_string('workdir', None, 'Workdir of a run.')
_STORE = flags.DEFINE_string('store', None, 'Folder of the slice store.')
_ROOT = flags.DEFINE_string(
  'root', None, 'Folder of the volumes, ROOT/DATASET/SUBJECT/MODALITY.nii.gz.'
)


def _claim(own: Modality, claimed: Modality) -> str:
  if own is claimed:
    return 'its own modality'
  if family_of(own) == family_of(claimed):
    return 'another of its family'
  return 'one of another family'


def main() -> None:
  trained = Trained.load(_WORKDIR.value)
  cases = SliceStore.open(_STORE.value).split('test')
  claims = [m for m in Modality if any(m in c.modalities for c in cases)]
  votes = collections.defaultdict(collections.Counter)
  outcomes = collections.defaultdict(collections.Counter)
  for case in each(cases, 'read', len(cases), 'case'):
    for own in case.modalities:
      folder = Path(_ROOT.value, case.dataset, case.subject)
      volume = read_volume(folder / f'{own.value}.nii.gz')
      for claimed in claims:
        reading = read_modality(trained, volume, claimed)
        doubt = reading.doubt(claimed)
        if suspicious_units(claimed, volume):
          doubt = Doubt.OTHER_FAMILY
        outcomes[_claim(own, claimed)][doubt] += 1
        if own is claimed:
          votes[f'{case.dataset} {own.label}'].update(reading.votes)
  labels = [m.label for m in claims]
  print(
    table(
      ['volume, slices read as', *labels],
      [[n, *(str(votes[n][m]) for m in claims)] for n in votes],
    )
  )
  print(
    table(
      ['claim', 'claims', 'accepted', 'doubted', 'refused'],
      [
        [name, str(count.total()), *(str(count[d]) for d in Doubt)]
        for name, count in outcomes.items()
      ],
    )
  )


if __name__ == '__main__':
  run_command(main, required=['workdir', 'store', 'root'])
