"""Facts of a slice: derived, put into words, and read in any words."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from task_fakes import case_of

from synermedgen_jax.core.modalities import Modality, Region, route_named
from synermedgen_jax.slices.grids import PLANES
from synermedgen_jax.slices.lesions import SliceLesions
from synermedgen_jax.tasks import facts as lib
from synermedgen_jax.tasks.facts import Facts, facts_of, level_of, read, write
from synermedgen_jax.tasks.prompts import PROMPTS

T1, T2 = Modality.T1, Modality.T2
ROUTE = route_named('brats_t1_to_t2')
LEVELS = ('lower', 'middle', 'upper', 'front', 'back')
TEMPLATES = sorted({t for p in PROMPTS.values() for t in p.slice_answers})


def lesions(**fields):
  """A lesion of 20 mm, 30 mm to the right, which T1 shows and T2 does not."""
  plain = {
    'area': 314.0,
    'count': 1,
    'right': 1.0,
    'offset': 30.0,
    'contrast': {T1: -0.3, T2: 0.1},
  }
  return SliceLesions(**plain | fields)


def facts(modality=T1, index=12, **fields):
  return facts_of(case_of(ROUTE, 10, 16, **fields), modality, index)


def test_a_case_without_a_mask_has_no_fact_about_lesions():
  assert facts() == Facts('T1 (MRI)', 'brain', 'axial', 'middle third')


def test_a_slice_without_lesion_of_a_case_with_a_mask_says_so():
  for known in ({}, {11: lesions()}, {12: lesions(area=2.0, count=0)}):
    assert facts(lesions=known).lesion == 'no'


def test_a_lesion_has_a_side_and_a_size():
  expected = Facts(
    *('T1 (MRI)', 'brain', 'axial', 'middle third', 'yes', 'right', 'small')
  )
  assert facts(lesions={12: lesions()}) == expected


@pytest.mark.parametrize(
  ('fields', 'expected'),
  [
    ({'right': 0.0, 'offset': -30.0}, ('yes', 'left', 'small')),
    ({'offset': 11.9}, ('yes', '', 'small')),  # at the midline
    ({'right': 0.89}, ('yes', 'both', 'small')),
    ({'right': 0.11, 'offset': -3.0}, ('yes', 'both', 'small')),
    ({'right': 0.9}, ('yes', 'right', 'small')),
    ({'right': 0.1, 'offset': -12.0}, ('yes', 'left', 'small')),
    # All lesions count; diameters of a circle of 30 and 45 mm.
    ({'area': 707.0, 'count': 2}, ('yes', 'right', 'medium')),
    ({'area': 1590.0}, ('yes', 'right', 'large')),
    # Neither a lesion nor none.
    ({'area': 119.0}, ('', '', '')),
    ({'count': 0}, ('', '', '')),
    ({'contrast': {T1: 0.11}}, ('', '', '')),
    ({'contrast': {T2: 0.5}}, ('', '', '')),
  ],
)
def test_lesions_have_side_and_size_unless_ambiguous(fields, expected):
  result = facts(lesions={12: lesions(**fields)})
  assert (result.lesion, result.side, result.size) == expected


def test_a_lesion_that_the_modality_does_not_show_is_left_out():
  known = {12: lesions()}
  assert facts(T1, lesions=known).lesion == 'yes'
  assert facts(T2, lesions=known).lesion == ''


def test_a_sagittal_slice_has_no_side_and_no_level():
  result = facts(lesions={12: lesions()}, plane='sagittal')
  assert result == Facts(
    'T1 (MRI)', 'brain', 'sagittal', '', 'yes', '', 'small'
  )


@pytest.mark.parametrize(
  ('plane', 'usable', 'thirds'),
  [
    ('axial', range(3, 6), 'lower middle upper'),
    ('axial', range(0, 7), 'lower lower middle middle middle upper upper'),
    ('axial', range(1, 9), 'lower lower lower middle middle upper upper upper'),
    ('coronal', range(10, 16), 'front front middle middle back back'),
  ],
)
def test_levels_are_thirds_of_the_usable_slices(plane, usable, thirds):
  words = [level_of(plane, usable, index) for index in usable]
  assert words == [f'{third} third' for third in thirds.split()]


@given(st.integers(0, 50), st.integers(3, 90), st.data())
def test_a_level_is_the_third_of_the_slices_middle(start, count, data):
  usable = range(start, start + count)
  index = data.draw(st.sampled_from(usable))
  place = (index - start + 0.5) / count
  expected = (
    'lower' if place < 1 / 3 else 'middle' if place < 2 / 3 else 'upper'
  )
  assert level_of('axial', usable, index) == f'{expected} third'


def test_two_slices_have_no_level():
  assert level_of('axial', range(5, 7), 5) == ''


@pytest.mark.parametrize(
  ('facts', 'words'),
  [
    (Facts('CT', 'pelvis', 'axial'), 'axial CT of the pelvis'),
    (
      Facts('T1 (MRI)', 'brain', 'axial', 'upper third', 'no'),
      'axial T1 (MRI) of the brain, upper third; no lesion',
    ),
    (
      Facts('PET', 'whole-body', 'coronal', 'back third', 'yes'),
      'coronal PET of the whole-body, back third; lesion',
    ),
    (
      Facts('MRI', 'brain', 'axial', 'lower third', 'yes', 'left', 'large'),
      'axial MRI of the brain, lower third; large lesion on the left',
    ),
    (
      Facts('MRI', 'brain', 'axial', '', 'yes', 'right'),
      'axial MRI of the brain; lesion on the right',
    ),
    (
      Facts('MRI', 'brain', 'axial', '', 'yes', 'both', 'medium'),
      'axial MRI of the brain; medium lesion on both sides',
    ),
    (
      Facts('MRI', 'brain', 'axial', '', 'yes', '', 'small'),
      'axial MRI of the brain; small lesion',
    ),
  ],
)
def test_what_is_not_known_is_not_said(facts, words):
  (template,) = PROMPTS['short'].slice_answers
  assert write(template, facts) == words


def parts(facts):
  """What `read` should return for these facts."""
  values = ((name, getattr(facts, name)) for name in lib.NAMES)
  return tuple(f'{name} {value}' if value else '' for name, value in values)


@st.composite
def any_facts(draw):
  lesion = draw(st.sampled_from(('', 'yes', 'no')))
  known = lesion == 'yes'
  return Facts(
    draw(st.sampled_from([m.label for m in Modality])),
    draw(st.sampled_from([r.label for r in Region])),
    draw(st.sampled_from(sorted(PLANES))),
    draw(st.sampled_from(['', *(f'{x} third' for x in LEVELS)])),
    lesion,
    draw(st.sampled_from(('', *lib.SIDES))) if known else '',
    draw(st.sampled_from(('', *lib.SIZES))) if known else '',
  )


@given(any_facts(), st.sampled_from(TEMPLATES))
def test_every_wording_is_read_as_it_was_written(facts, template):
  assert read(write(template, facts)) == parts(facts)


def test_every_single_value_is_read_in_every_wording():
  """All of them, where the property draws some."""
  for template in TEMPLATES:
    for modality in Modality:
      for region in Region:
        facts = Facts(modality.label, region.label, 'axial', '', 'no')
        assert read(write(template, facts)) == parts(facts)


def values(text):
  """The facts of a text, as 'name value' joined by commas."""
  return ', '.join(part for part in read(text) if part)


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('Brain MR', 'modality MRI, region brain'),
    ('T1 MRI, brain', 'modality T1 (MRI), region brain'),
    ('a T1-weighted image', 'modality T1 (MRI)'),
    ('contrast-enhanced T1-weighted MRI', 'modality T1CE (MRI)'),
    ('FLAIR', 'modality FLAIR (MRI)'),
    ('cone-beam CT of the chest', 'modality CBCT, region thorax'),
    ('whole body PET', 'modality PET, region whole-body'),
    ('pelvic CT', 'modality CT, region pelvis'),
    ('CT of head and neck', 'modality CT, region head-neck'),
    ('transverse', 'plane axial'),
    ('Sagittal.', 'plane sagittal'),
    ('in the top part', 'level upper third'),
    ('Mid third', 'level middle third'),
    ('posterior third', 'level back third'),
    ('upper', ''),
    ('a right-sided lesion', 'lesion yes, side right'),
    ('LEFT tumor, Large', 'lesion yes, side left, size large'),
    (
      'on the right there are small lesions',
      'lesion yes, side right, size small',
    ),
    ('bilateral lesions', 'lesion yes, side both'),
    ('a medium-sized mass', 'lesion yes, size medium'),
    ('There is no visible lesion.', 'lesion no'),
    ('without lesions', 'lesion no'),
    ('no evidence of a focal brain lesion', 'region brain, lesion no'),
    ('lesions: none', 'lesion no'),
    ('a lesion is not seen', 'lesion no'),
    ('no oedema but a lesion on the left', 'lesion yes, side left'),
    ('lesion-free', 'lesion no'),
    ('no large lesion on the left', 'lesion no'),
    # Side and size of nothing.
    ('large, on the right', ''),
    ('', ''),
    # Parts of words are no words.
    ('lesional brainstem, CTs, alright', ''),
  ],
)
def test_other_words_state_the_same_facts(text, expected):
  assert values(text) == expected


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('lesion on the left, lesion on the right', 'lesion yes'),
    ('lesion on the left, on both sides', 'lesion yes'),
    ('lesion, right, large or small', 'lesion yes, side right'),
    ('no lesion; lesion on the right', ''),
    ('CT or PET', ''),
    ('T1 and T2 MRI', ''),
    ('axial or coronal slice of the brain', 'region brain'),
    ('brain, pelvis', ''),
    ('from the upper third or the lower third', ''),
  ],
)
def test_a_fact_with_two_values_is_none(text, expected):
  assert values(text) == expected


@given(st.text())
def test_any_text_has_a_part_per_fact(text):
  assert len(read(text)) == len(lib.NAMES)


@pytest.mark.parametrize(
  ('diameter', 'size'),
  [
    (12, 'small'),
    (25.9, 'small'),
    (26.1, 'medium'),
    (39.9, 'medium'),
    (40.1, 'large'),
    (90, 'large'),
  ],
)
def test_sizes_are_diameters_of_a_circle(diameter, size):
  assert lib.size_of(np.pi * diameter**2 / 4) == size
