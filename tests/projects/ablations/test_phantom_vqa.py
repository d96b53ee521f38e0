"""The command that writes ordinary questions about phantoms."""

import collections
import json

import commands
import numpy as np
import pytest
from commands import assert_refused

from projects.ablations.vqa import QUESTIONS
from synermedgen_jax.core.modalities import Modality
from synermedgen_jax.input.pipeline import slice_reader
from synermedgen_jax.interop.vlm_jsonl import VlmLines
from synermedgen_jax.phantoms import cohorts
from synermedgen_jax.phantoms.cohorts import phantom_cases
from synermedgen_jax.slices.framing import SliceSpec
from synermedgen_jax.slices.ingest import Settings, ingest
from synermedgen_jax.slices.store import SliceStore, StoreWriter
from synermedgen_jax.tasks.example import SliceRef

SPLITS = {'brats_000': 'train', 'brats_001': 'val', 'brats_002': 'test'}


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  """Three phantoms of one cohort, their store, and the questions."""
  root = tmp_path_factory.mktemp('vqa')
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(cohorts, 'COHORTS', {'brats': cohorts.COHORTS['brats']})
    cohorts.write_phantoms(root / 'phantoms', subjects=3, progress=False)
    writer = StoreWriter(str(root / 'store'), {'canvas': 64})
    splits = {}
    for files in phantom_cases(root / 'phantoms'):
      ingested = ingest(files, Settings(SliceSpec((64, 64))))
      writer.write_case(ingested.case, ingested.volumes, ingested.mask)
      splits[ingested.case.id] = SPLITS[files.subject]
    writer.finish(splits)
    result = ask(root)
  assert result[0] == 0, result[2]
  return root


def ask(root, *flags, store='store'):
  return commands.run(
    'projects.ablations.phantom_vqa',
    f'--phantoms={root}/phantoms',
    f'--store={root}/{store}',
    f'--output={root}/asked',
    '--questions=80',
    *flags,
  )


def rows(root, split):
  path = root / 'asked' / split / 'vlm.jsonl'
  return [json.loads(line) for line in path.read_text().splitlines()]


def test_questions_are_of_the_four_kinds_and_balanced(root):
  lines = rows(root, 'train')
  assert 20 < len(lines) <= 80
  asked = collections.Counter()
  for row in lines:
    (human, gpt) = row['conversations']
    question = human['value'].removeprefix('<image>\n')
    assert question in QUESTIONS.values()
    asked[question, gpt['value']] += 1
  yes, no = (asked[QUESTIONS['lesion'], answer] for answer in ('yes', 'no'))
  assert abs(yes - no) <= 1


def test_pictures_are_slices_of_the_splits_own_subjects(root):
  store = SliceStore.open(str(root / 'store'))
  read = slice_reader(store)
  for split, case in (('train', 'brats_000'), ('val', 'brats_001')):
    slices = {
      (np.round((read(SliceRef(f'brats.{case}', m, i)) + 1) * 127.5)).tobytes()
      for m in (Modality.T1, Modality.T1CE, Modality.T2, Modality.FLAIR)
      for i in store.case(f'brats.{case}').usable
    }
    lines = VlmLines([root / 'asked' / split / 'vlm.jsonl'])
    for number in range(len(lines)):
      image = lines[number].spans[0].image.read()
      assert (
        np.round((image + 1) * 127.5).astype(np.float32).tobytes() in slices
      )


def test_no_question_is_about_a_test_subject(root):
  assert sorted(p.name for p in (root / 'asked').iterdir()) == ['train', 'val']


def test_existing_questions_are_kept(root):
  path = root / 'asked' / 'train' / 'vlm.jsonl'
  before = path.read_bytes()
  code, out, err = ask(root)
  assert code == 0, err
  assert f'Reusing {path}.' in out
  assert path.read_bytes() == before


def test_a_store_of_something_else_is_refused(root, store_path, tmp_path):
  result = commands.run(
    'projects.ablations.phantom_vqa',
    f'--phantoms={root}/phantoms',
    f'--store={store_path}',
    f'--output={tmp_path}/out',
  )
  assert_refused(result, "Case 'case0' of the store is no phantom")


def test_missing_phantoms_are_refused(root, tmp_path):
  result = commands.run(
    'projects.ablations.phantom_vqa',
    f'--phantoms={tmp_path}',
    f'--store={root}/store',
    f'--output={tmp_path}/out',
  )
  assert_refused(result, 'phantoms.json: does not describe a complete set')
