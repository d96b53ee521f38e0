"""Ordinary medical VQA on phantoms, in BAGEL's VLM format.

  python -m projects.ablations.phantom_vqa --phantoms=runs/phantoms \\
      --store=runs/store --output=runs/vqa

Questions about single slices: is there a lesion, on which side of the patient,
how large is it, and which organ is the largest? Images are slices of the store.
Answers come from the anatomy of the phantoms, which is rendered again. Writes
DIR/train/vlm.jsonl and DIR/val/vlm.jsonl with PNG files, for the subjects of
these two splits; a file that exists is kept. Train on them with
--config.bagel_files.vlm and .val_vlm and the task `vlm`.

Slices are shown as stored: the patient's right is on the left of the picture.
"""

import collections
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from absl import flags

from projects.ablations import vqa
from synermedgen_jax.config.command_line import run_command
from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.progress import each
from synermedgen_jax.input.pipeline import slice_reader
from synermedgen_jax.interop.vlm_jsonl import write_vlm
from synermedgen_jax.phantoms import cohorts
from synermedgen_jax.phantoms.truth import findings
from synermedgen_jax.slices.store import Case, SliceStore
from synermedgen_jax.tasks.example import SliceRef

_PHANTOMS = flags.DEFINE_string(
  'phantoms', None, 'Folder of the phantoms, written by `prepare`.'
)
_STORE = flags.DEFINE_string('store', None, 'Slice store of these phantoms.')
_OUTPUT = flags.DEFINE_string('output', None, 'Folder for the questions.')
_QUESTIONS = flags.DEFINE_integer(
  'questions',
  12000,
  'Largest number of questions of the split train; val has an eighth.',
  8,
)
_SEED = flags.DEFINE_integer('seed', 0, 'Random seed of the questions.')


class PhantomError(UserError):
  """The store is not made of these phantoms; one line."""


def _seed_of(root: Path) -> int:
  """Random seed of a set of phantoms."""
  path = root / cohorts.MARKER
  try:
    record = json.loads(path.read_text())
    seed, version = record['seed'], record['version']
  except (OSError, ValueError, KeyError, TypeError):
    raise PhantomError(
      f'{path}: does not describe a complete set of phantoms.'
    ) from None
  if version != cohorts.VERSION:
    raise PhantomError(
      f'{path}: has version {version}, this code draws version '
      f'{cohorts.VERSION}; draw the phantoms again.'
    )
  return int(seed)


def _number(case: Case) -> int:
  """A phantom's number within its cohort."""
  match = re.fullmatch(rf'{re.escape(case.dataset)}_(\d+)', case.subject)
  if case.dataset not in cohorts.COHORTS or not match:
    raise PhantomError(
      f'Case {case.id!r} of the store is no phantom; its cohorts are '
      f'{", ".join(cohorts.COHORTS)}.'
    )
  return int(match.group(1))


def _ask_case(store: SliceStore, case: Case, seed: int) -> Iterator[vqa.Asked]:
  """All questions about one case."""
  anatomy = cohorts.render_anatomy(case.dataset, seed, _number(case))
  by_slice = findings(case, *anatomy)
  for modality in sorted(case.modalities):
    volume = store.read_volume(case.id, modality)
    for index in case.usable:
      ref = SliceRef(case.id, modality, index)
      for kind, answer in vqa.ask(by_slice[index], volume[index]):
        yield ref, kind, answer


def _write(store: SliceStore, split: str, count: int, seed: int) -> None:
  folder = Path(_OUTPUT.value) / split
  if (folder / 'vlm.jsonl').is_file():
    print(f'Reusing {folder}/vlm.jsonl.')
    return
  cases = store.split(split)
  if not cases:
    raise PhantomError(f'{store.path}: has no subject in split {split!r}.')
  for case in cases:
    _number(case)
  asked = []
  for case in each(cases, f'ask {split}', len(cases), 'case'):
    asked += _ask_case(store, case, seed)
  drawn = vqa.balanced(asked, count, np.random.default_rng(_SEED.value))
  if not drawn:
    raise PhantomError(f'{store.path}: split {split!r} yields no question.')
  examples = (vqa.build(*question) for question in drawn)
  path = write_vlm(examples, slice_reader(store), folder)
  counts = collections.Counter((kind, answer) for _, kind, answer in drawn)
  shares = ', '.join(f'{k} {a} {n}' for (k, a), n in sorted(counts.items()))
  print(f'{path}: {len(drawn)} questions of {len(asked)} ({shares}).')


def main() -> None:
  seed = _seed_of(Path(_PHANTOMS.value))
  store = SliceStore.open(_STORE.value)
  _write(store, 'train', _QUESTIONS.value, seed)
  _write(store, 'val', max(_QUESTIONS.value // 8, 1), seed)


if __name__ == '__main__':
  run_command(main, required=['phantoms', 'store', 'output'])
