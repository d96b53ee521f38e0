import collections
import copy
import json

import pytest

from synermedgen_jax.core import modalities as lib
from synermedgen_jax.core.modalities import Modality, Region

NAMES = [
  'brain_cbct_to_ct',
  'brain_ct_to_cbct',
  'pelvis_cbct_to_ct',
  'pelvis_ct_to_cbct',
  'brain_mr_to_ct',
  'brain_ct_to_mr',
  'pelvis_mr_to_ct',
  'pelvis_ct_to_mr',
  'whole_body_pet_to_ct',
  'whole_body_ct_to_pet',
  'brats_t1_to_t1ce',
  'brats_t1_to_t2',
  'brats_t1_to_flair',
  'brats_t1ce_to_t1',
  'brats_t1ce_to_t2',
  'brats_t1ce_to_flair',
  'brats_t2_to_t1',
  'brats_t2_to_t1ce',
  'brats_t2_to_flair',
  'brats_flair_to_t1',
  'brats_flair_to_t1ce',
  'brats_flair_to_t2',
]


def test_the_routes_are_the_papers_22():
  assert len(NAMES) == 22
  assert [route.name for route in lib.ROUTES] == NAMES
  assert [lib.ROUTES_BY_NAME[name].name for name in NAMES] == NAMES


def test_routes_outside_the_22_are_of_other_regions():
  names = [route.name for route in lib.OUTSIDE_ROUTES]
  assert names[:4] == [
    'head_neck_cbct_to_ct',
    'head_neck_ct_to_cbct',
    'head_neck_mr_to_ct',
    'head_neck_ct_to_mr',
  ]
  assert names[-2:] == ['heart_t2_to_bssfp', 'heart_t2_to_lge']
  assert len(set(names)) == 3 * 4 + 6
  regions = {r.region for r in lib.ROUTES}
  assert not regions & {r.region for r in lib.OUTSIDE_ROUTES}


def test_every_route_has_its_reverse_in_the_same_cohort():
  for route in lib.all_routes():
    assert route.reverse in lib.all_routes()
    assert route.reverse != route
    assert route.reverse.reverse == route


def test_cohorts_lie_in_their_regions():
  regions = collections.Counter((r.cohort, r.region) for r in lib.ROUTES)
  assert regions == {
    ('brain', Region.BRAIN): 4,
    ('pelvis', Region.PELVIS): 4,
    ('whole_body', Region.WHOLE_BODY): 2,
    ('brats', Region.BRAIN): 12,
  }


def test_labels_are_the_answers_of_modality_identification():
  assert {m.value: m.label for m in Modality} == {
    'ct': 'CT',
    'cbct': 'CBCT',
    'pet': 'PET',
    't1': 'T1 (MRI)',
    't1ce': 'T1CE (MRI)',
    't2': 'T2 (MRI)',
    'flair': 'FLAIR (MRI)',
    'mr': 'MRI',
    'bssfp': 'bSSFP (MRI)',
    'lge': 'LGE (MRI)',
  }
  assert [r.label for r in Region] == [
    'brain',
    'pelvis',
    'whole-body',
    'head-neck',
    'thorax',
    'abdomen',
    'heart',
  ]


def test_only_ct_and_pet_have_physical_units():
  units = {m.value: m.unit for m in Modality if m.unit != 'a.u.'}
  assert units == {'ct': 'HU', 'cbct': 'HU', 'pet': 'SUV'}


def test_parsing_ignores_case():
  assert Modality.parse('T1CE') is Modality.T1CE
  assert Region.parse('Whole-Body') is Region.WHOLE_BODY


def test_an_unknown_modality_lists_the_known_ones():
  with pytest.raises(ValueError, match="'mri'") as error:
    Modality.parse('mri')
  assert 'one of ct, cbct, pet, t1, t1ce, t2, flair, mr, ' in str(error.value)


def test_an_unknown_region_lists_the_known_ones():
  with pytest.raises(ValueError, match="'knee'") as error:
    Region.parse('knee')
  assert 'one of brain, pelvis, whole_body, ' in str(error.value)


def test_a_route_is_found_by_its_key():
  for route in lib.ROUTES:
    route_of_key = lib.find_route(route.region, route.source, route.target)
    assert route_of_key is route


def test_unknown_route_lists_those_of_the_region():
  with pytest.raises(ValueError, match='pet->mr in region whole_body') as error:
    lib.find_route(Region.WHOLE_BODY, Modality.PET, Modality.MR)
  assert 'expected one of pet->ct, ct->pet.' in str(error.value)


def test_a_case_serves_the_routes_whose_both_ends_it_has():
  routes = lib.routes_between(
    Region.BRAIN, {Modality.CT, Modality.MR, Modality.T1, Modality.T2}
  )
  assert [route.name for route in routes] == [
    'brain_mr_to_ct',
    'brain_ct_to_mr',
    'brats_t1_to_t2',
    'brats_t2_to_t1',
  ]
  assert not lib.routes_between(Region.PELVIS, {Modality.CT})
  assert not lib.routes_between(Region.PELVIS, {Modality.PET, Modality.CT})


def test_confusable_groups_leave_out_pet_alone():
  groups = [m for group in lib.confusable_groups() for m in group]
  assert len(groups) == len(set(groups))
  assert set(Modality) - set(groups) == {Modality.PET}


@pytest.fixture
def tables():
  """The tables, as they were before the test in the end."""
  known = (lib.ROUTES_BY_NAME, lib._ROUTES_BY_KEY)
  known += (Modality.members, Region.members)
  before = [dict(table) for table in known]
  yield
  for table, rows in zip(known, before, strict=True):
    table.clear()
    table.update(rows)


def test_a_registered_modality_is_like_the_others(tables):
  swi = lib.register_modality('swi', 'SWI (MRI)', family='mr')
  assert Modality('swi') is Modality.parse('SWI') is swi
  assert list(Modality)[-1] is swi
  assert (swi, swi.value, swi.label, swi.unit) == (
    'swi',
    'swi',
    'SWI (MRI)',
    'a.u.',
  )
  (with_mr,) = (g for g in lib.confusable_groups() if Modality.MR in g)
  assert swi in with_mr


def test_a_registered_route_comes_with_its_reverse(tables):
  knee = lib.register_region('knee')
  forth, back = lib.register_route(knee, Modality.T1, Modality.T2)
  assert (forth.name, back.name) == ('knee_t1_to_t2', 'knee_t2_to_t1')
  assert lib.find_route(knee, Modality.T1, Modality.T2) is forth
  assert lib.routes_between(knee, {Modality.T1, Modality.T2}) == (forth, back)
  assert lib.all_routes()[-2:] == (forth, back)
  assert len(lib.ROUTES) == 22


@pytest.mark.parametrize(
  ('register', 'message'),
  [
    (lambda: lib.register_modality('ct', 'other'), "Modality 'ct'"),
    (lambda: lib.register_modality('CT2', 'other'), 'lower-case'),
    (lambda: lib.register_modality('other', 'CT'), "label 'CT' is taken"),
    (lambda: lib.register_region('brain'), "Region 'brain'"),
    (
      lambda: lib.register_route(Region.BRAIN, Modality.MR, Modality.CT),
      'brain_mr_to_ct is already registered',
    ),
    (
      lambda: lib.register_route(
        Region.BRAIN, Modality.MR, Modality.CT, cohort='other'
      ),
      'other_mr_to_ct is already registered',
    ),
  ],
)
def test_a_taken_name_is_refused_and_adds_nothing(tables, register, message):
  before = (lib.all_routes(), list(Modality), list(Region))
  with pytest.raises(ValueError, match=message):
    register()
  assert (lib.all_routes(), list(Modality), list(Region)) == before


def test_a_modality_is_one_object_however_it_is_copied():
  for copied in (
    copy.deepcopy(Modality.CT),
    copy.copy(Modality.CT),
    Modality(str(Modality.CT)),
  ):
    assert copied is Modality.CT
  assert json.dumps({Modality.CT: [Region.BRAIN]}) == '{"ct": ["brain"]}'
