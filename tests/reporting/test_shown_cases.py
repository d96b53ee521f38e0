import numpy as np
import pytest
from report_fakes import AFFINE, SHAPE, write_volumes

from synermedgen_jax.evaluation.subjects import ResultError
from synermedgen_jax.reporting import shown_cases as lib

ROUTE = 'brain_mr_to_ct'


def worst(folder, route=ROUTE, **changes):
  write_volumes(folder, route, kinds=('worst',), **changes)
  return folder / 'volumes' / route / 'worst.npz'


def test_a_case_has_its_arrays_and_views(tmp_path):
  shown = lib.read_shown_case(worst(tmp_path))
  assert shown.route.name == ROUTE
  assert (shown.kind, shown.subject, shown.ssim) == ('worst', 's.1', 0.5)
  source, synthesis, truth = shown.views()
  assert [v.role for v in shown.views()] == ['source', 'synthesis', 'truth']
  assert (source.label, source.span) == ('MRI', (0, 510))
  assert (truth.label, truth.unit, truth.span) == ('CT', 'HU', (0, 255))
  np.testing.assert_array_equal(synthesis.volume[0, 3], 20 * np.arange(12) + 3)


def test_a_route_of_several_sources_shows_them_all(tmp_path):
  path = worst(tmp_path, 'brats_t1+t2_to_flair')
  views = lib.read_shown_case(path).views()
  assert [view.label for view in views] == [
    'T1 (MRI)',
    'T2 (MRI)',
    'FLAIR (MRI)',
    'FLAIR (MRI)',
  ]


REFUSED = {
  'type': ({'truth': np.zeros(SHAPE)}, 'must be uint8'),
  'shape': ({'truth': np.zeros((1, 2, 3), np.uint8)}, 'differ in shape'),
  'sources': (
    {'sources': np.zeros((2, *SHAPE), np.uint8)},
    r'not 1 source\(s\)',
  ),
  'mask': ({'mask': np.zeros(SHAPE)}, 'mask is float64'),
  'affine': ({'affine': np.zeros((4, 4))}, 'not an invertible'),
  'windows': ({'windows': np.zeros((3, 2))}, 'the lower value first'),
  'ssim': ({'ssim': np.array(np.nan)}, 'ssim is not a number'),
  'pickle': ({'subject': np.array([{}])}, 'cannot be read'),
}


@pytest.mark.parametrize('kind', REFUSED)
def test_what_is_not_as_stated_is_refused(kind, tmp_path):
  changes, message = REFUSED[kind]
  path = worst(tmp_path, **changes)
  with pytest.raises(ResultError, match=message) as error:
    lib.read_shown_case(path)
  assert str(path) in str(error.value)


def test_all_worst_cases_come_first(tmp_path):
  write_volumes(tmp_path, ROUTE)
  write_volumes(tmp_path, 'brain_ct_to_mr', kinds=('worst', 'best'))
  write_volumes(tmp_path, 'brats_t1_to_t2')  # not asked for
  paths = lib.shown_paths(tmp_path, [ROUTE, 'brain_ct_to_mr'])
  assert [(p.parent.name, p.stem) for p in paths] == [
    (ROUTE, 'worst'),
    ('brain_ct_to_mr', 'worst'),
    (ROUTE, 'median'),
    (ROUTE, 'best'),
    ('brain_ct_to_mr', 'best'),
  ]


def test_the_budget_leaves_out_the_last_cases(tmp_path):
  noise = np.random.default_rng(0)
  for kind in lib.KINDS:
    synthesis = noise.integers(0, 256, SHAPE, np.uint8)
    write_volumes(tmp_path, ROUTE, kinds=(kind,), synthesis=synthesis)
  paths = lib.shown_paths(tmp_path, [ROUTE])
  contents, left_out = lib.contents_of(paths)
  assert (len(contents), left_out) == (3, 0)
  limit = lib.frame() + 0.8 * contents.size
  contents, left_out = lib.contents_of(paths, limit)
  assert (len(contents), left_out) == (2, 1)


def test_the_convention_of_the_affine_is_that_of_slices(tmp_path):
  shown = lib.read_shown_case(worst(tmp_path))
  np.testing.assert_array_equal(shown.affine, AFFINE)
  contents, _ = lib.contents_of([tmp_path / 'volumes' / ROUTE / 'worst.npz'])
  # Columns (w) run to the left, so x falls along the first axis.
  assert '"shape": [12, 10, 6]' in contents.html()
