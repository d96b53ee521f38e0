import collections
import copy
import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synermedgen_jax.core import modalities as lib
from synermedgen_jax.core.errors import UserError
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
  assert [lib.route_named(name).name for name in NAMES] == NAMES


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
    route_of_key = lib.find_route(route.region, route.sources, route.target)
    assert route_of_key == route


def test_several_sources_are_found_in_any_order():
  wanted = lib.route_named('brats_t1+t2+flair_to_t1ce')
  for sources in itertools.permutations(
    (Modality.T1, Modality.T2, Modality.FLAIR)
  ):
    assert lib.find_route(Region.BRAIN, sources, Modality.T1CE) == wanted


def test_a_name_with_several_sources_says_what_they_are():
  route = lib.route_named('brats_t1+t2+flair_to_t1ce')
  assert route == lib.Route(
    'brats',
    Region.BRAIN,
    (Modality.T1, Modality.T2, Modality.FLAIR),
    Modality.T1CE,
  )
  assert route.name == 'brats_t1+t2+flair_to_t1ce'


@given(st.sampled_from([r for n in (1, 2, 3) for r in lib.routes_with(n)]))
def test_a_route_and_its_name_are_one(route):
  assert lib.route_named(route.name) == route
  for order in itertools.permutations(route.sources):
    assert lib.find_route(route.region, order, route.target) == route


@given(
  st.lists(st.sampled_from(lib.BRATS_CONTRASTS), min_size=1, max_size=4),
  st.sampled_from(lib.BRATS_CONTRASTS),
)
def test_a_name_is_known_or_refused_as_the_rules_say(sources, target):
  """Each once, in the order of registration, and never the target."""
  order = [lib.BRATS_CONTRASTS.index(source) for source in sources]
  name = f'brats_{"+".join(sources)}_to_{target}'
  if target not in sources and order == sorted(set(order)):
    assert lib.route_named(name).name == name
  else:
    with pytest.raises(UserError):
      lib.route_named(name)


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('brats_t1_to_t3', "Unknown route 'brats_t1_to_t3': the nearest are "),
    ('brats_t1+t3_to_t2', ', which needs brats_t3_to_t2: the nearest are '),
    ('brats_t3+t1_to_t2', ', which needs brats_t3_to_t2: '),
    ('brats_t1+t2_to_t2', ', which needs brats_t2_to_t2: '),
    ('brain_mr+t1_to_ct', ', which needs brain_t1_to_ct: '),
    ('brats_t1+t1_to_t2', 'Sources t1+t1: one of them is named twice.'),
    ('brats_t2+t1_to_flair', 'another order; write brats_t1+t2_to_flair.'),
    ('brats_t1_to_t2+flair', "Unknown route 'brats_t1_to_t2+flair': "),
    ('brats_t1+_to_t2', 'Unknown route '),
    ('t1+t2', "Unknown route 't1+t2'"),
    ('', "Unknown route ''"),
  ],
)
def test_a_name_that_is_no_route_is_refused_in_one_line(name, message):
  with pytest.raises(UserError) as refused:
    lib.route_named(name)
  assert message in str(refused.value)
  assert '\n' not in str(refused.value)


def test_all_sets_of_the_contrasts_are_routes():
  names = [
    [r.name for r in lib.routes_with(n) if r.cohort == 'brats']
    for n in (2, 3, 4)
  ]
  assert names == [
    [
      'brats_t1+t2_to_t1ce',
      'brats_t1+flair_to_t1ce',
      'brats_t1+t1ce_to_t2',
      'brats_t1+flair_to_t2',
      'brats_t1+t1ce_to_flair',
      'brats_t1+t2_to_flair',
      'brats_t1ce+t2_to_t1',
      'brats_t1ce+flair_to_t1',
      'brats_t1ce+flair_to_t2',
      'brats_t1ce+t2_to_flair',
      'brats_t2+flair_to_t1',
      'brats_t2+flair_to_t1ce',
    ],
    [
      'brats_t1+t2+flair_to_t1ce',
      'brats_t1+t1ce+flair_to_t2',
      'brats_t1+t1ce+t2_to_flair',
      'brats_t1ce+t2+flair_to_t1',
    ],
    [],
  ]
  assert lib.routes_with(1) == lib.all_routes()


def test_tables_have_routes_with_few_sources_first():
  names = ['brats_t1+t2_to_t1ce', 'brats_t2_to_t1ce', 'brain_mr_to_ct']
  assert [r.name for r in lib.routes_named([*names, names[0]])] == [
    'brain_mr_to_ct',
    'brats_t2_to_t1ce',
    'brats_t1+t2_to_t1ce',
  ]


def test_what_needs_one_source_refuses_several():
  route = lib.route_named('brats_t1+t2_to_t1ce')
  for ask in (lambda: route.source, lambda: route.reverse):
    with pytest.raises(UserError, match=r't2_to_t1ce has 2 sources where one'):
      ask()


def test_a_route_is_joined_by_further_sources():
  route = lib.route_named('brats_t2_to_t1ce')
  joined = route.joined_by([Modality.FLAIR, Modality.T1])
  assert joined.name == 'brats_t1+t2+flair_to_t1ce'
  assert route.joined_by([]) == route
  with pytest.raises(UserError, match='another target'):
    route.joined_by([Modality.T1CE])


@pytest.mark.parametrize('sources', [(), ('t2', 't1'), ('t1', 't1'), ('t2',)])
def test_a_route_of_other_sources_does_not_exist(sources):
  with pytest.raises(UserError, match='expected one source or more, each once'):
    lib.Route('brats', Region.BRAIN, tuple(map(Modality, sources)), Modality.T2)


def test_sources_of_two_cohorts_have_no_route(tables):
  lib.register_route(Region.BRAIN, Modality.T1, Modality.CT, cohort='other')
  with pytest.raises(UserError, match='are of two cohorts'):
    lib.find_route(Region.BRAIN, (Modality.MR, Modality.T1), Modality.CT)


def test_a_registered_pair_joins_others_of_its_cohort(tables):
  swi = lib.register_modality('swi', 'SWI (MRI)', family='mr')
  lib.register_route(Region.BRAIN, swi, Modality.T2, cohort='brats')
  route = lib.route_named('brats_t1+swi_to_t2')
  assert route.sources == (Modality.T1, swi)
  assert route in lib.routes_with(2)


def test_unknown_route_lists_those_of_the_region():
  with pytest.raises(ValueError, match='pet->mr in region whole_body') as error:
    lib.find_route(Region.WHOLE_BODY, [Modality.PET], Modality.MR)
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
  known = (lib._ROUTES_BY_NAME, lib._ROUTES_BY_KEY)
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
  assert lib.find_route(knee, [Modality.T1], Modality.T2) == forth
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
