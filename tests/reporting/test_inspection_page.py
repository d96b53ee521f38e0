"""The check's page and text, of cases made up."""

import dataclasses

import numpy as np
import pytest

from synermedgen_jax.core.modalities import Modality
from synermedgen_jax.reporting import inspection_page as lib
from synermedgen_jax.slices.alignment import Offset
from synermedgen_jax.slices.inspection import CaseFacts, VolumeFacts

CT, MR = Modality.CT, Modality.MR


def facts(offset=None):
  return VolumeFacts(
    name='ct.nii.gz',
    shape=(8, 9, 10),
    spacing=(1.0, 1.5, 2.0),
    axes='LPS',
    low=-1024.0,
    high=3071.0,
    percentiles=(-1000.0, 900.5),
    same_grid=offset is None,
    offset=offset,
  )


def case(name, *problems, offset=None):
  pictures = {m: np.zeros((16, 16), np.float32) for m in (CT, MR)}
  volumes = {CT: facts(), MR: facts(offset or Offset((0, 0, 0), 0))}
  return CaseFacts(name, volumes, problems, 5, pictures)


CASES = [
  case('fine'),
  case('far', offset=Offset((0, 0, 9), 0.1)),
  case('bad', 'ct.nii.gz: <is empty>.', 'mr.nii.gz: no such file.'),
]


def test_the_worst_come_first():
  assert [c.id for c in lib.worst_first(CASES)] == ['bad', 'far', 'fine']


def test_notes_come_after_problems_and_before_offsets():
  noted = dataclasses.replace(case('noted'), notes=('a.nii: is doubtful.',))
  cases = [*CASES, noted]
  assert [c.id for c in lib.worst_first(cases)] == [
    'bad',
    'noted',
    'far',
    'fine',
  ]
  assert 'noted: note: a.nii: is doubtful.' in lib.summary(cases).splitlines()
  page = lib.inspection_page(cases, 6.0)
  assert page.index('a.nii: is doubtful.') > page.index('Doubtful')


def test_every_offset_is_shown_with_its_gain():
  page = lib.inspection_page(CASES, 6.0)
  assert '9 mm superior, gain 0.100' in page
  assert 'none, gain 0.000, not significant' in page


def test_the_text_has_a_line_for_every_problem():
  assert lib.summary(CASES).splitlines() == [
    'bad: ct.nii.gz: <is empty>.',
    'bad: mr.nii.gz: no such file.',
    '3 cases, 1 of them with problems; 15 usable slices.',
  ]


def test_the_page_names_every_file_and_shows_the_worst():
  page = lib.inspection_page(CASES, 6.0)
  assert page.count('class="drawing"') == 3
  assert '&lt;is empty&gt;' in page
  assert '9 mm superior' in page
  assert '8 x 9 x 10' in page
  assert page.count('<td>far</td>') == 2


@pytest.mark.parametrize(('count', 'shown'), [(0, 0), (14, 10)])
def test_at_most_ten_are_shown(count, shown):
  cases = [case(f'c{i}') for i in range(count)]
  page = lib.inspection_page(cases, 6.0)
  assert page.count('class="drawing"') == shown
  assert 'None.' in page
