"""Each score of adherence on outputs that were made to fail it."""

import dataclasses

import numpy as np
import pytest
from scipy import ndimage

from synermedgen_jax.core.choices import ADHERENCE as NAMES
from synermedgen_jax.core.modalities import Modality, route_named
from synermedgen_jax.evaluation.adherence import ADHERENCE, Output, position
from synermedgen_jax.evaluation.metrics import case_metrics

ROUTE = route_named('brain_mr_to_ct')
PIXEL = (4.0, 3.0)
USABLE = range(2, 18)
INDICES = np.array([5, 9, 13])


def anatomy(seed):
  """Structures that change from slice to slice, in [0, 1]: z, h, w."""
  rng = np.random.default_rng(seed)
  field = ndimage.gaussian_filter(rng.standard_normal((20, 40, 40)), (1, 2, 2))
  return (field - field.min()) / np.ptp(field)


SHAPE = anatomy(0)
# Two contrasts of one anatomy; neither is a line of the other.
MR = (2 * np.sin(6 * SHAPE) ** 2 - 1).astype(np.float32)
CT = (2 * SHAPE**2 - 1).astype(np.float32)
MASK = np.ones((3, 40, 40), bool)
MASK[:, :6] = False


def read_exactly(images):
  """The volume that holds each slice."""
  return [
    Modality.CT if (image == CT).all((1, 2)).any() else Modality.MR
    for image in images
  ]


def never_again(**changes):
  raise AssertionError('This score synthesises nothing.')


def output(synthesis, again=never_again, **changes):
  made = Output(
    route=ROUTE,
    synthesis=synthesis,
    indices=INDICES,
    mask=MASK,
    source=MR,
    truth=CT,
    usable=USABLE,
    pixel=PIXEL,
    withheld=(),
    again=again,
    read=read_exactly,
    classify=read_exactly,
  )
  return dataclasses.replace(made, **changes)


def score(name, *args, **kwargs):
  return ADHERENCE[name].function(output(*args, **kwargs))


def test_the_flag_lists_the_scores():
  assert tuple(ADHERENCE) == NAMES


@pytest.mark.parametrize('name', [*ADHERENCE])
def test_every_number_is_printed_and_defined(name):
  row = ADHERENCE[name]
  assert row.numbers
  assert {'unit', 'dimension'} <= row.definition.keys()


def test_the_truth_has_no_drift():
  values = score('drift', CT[INDICES])
  assert values['nearest'] == 1
  for number in ('through_plane', 'through_plane_truth', 'nearest_offset'):
    assert values[number] == 0
  assert values['in_plane'] == values['in_plane_truth'] < 0.2 * min(PIXEL)


def test_a_synthesis_of_two_slices_further_drifts_by_two():
  values = score('drift', CT[INDICES + 2])
  assert values['through_plane'] == values['nearest_offset'] == 2
  assert values['nearest'] == 0
  assert values['through_plane_truth'] == 0


def test_offsets_towards_both_ends_do_not_cancel():
  values = score('drift', CT[INDICES + np.array([2, 0, -2])])
  assert values['nearest_offset'] == pytest.approx(4 / 3)
  assert values['nearest'] == pytest.approx(1 / 3)


def test_values_around_zero_that_are_a_little_off_do_not_drift():
  """SSIM on [-1, 1] would take them for dissimilar."""
  images = (0.1 * CT).astype(np.float32)
  made = dataclasses.replace(output(images[INDICES] - 0.05), truth=images)
  values = ADHERENCE['drift'].function(made)
  assert values['nearest'] == 1


def test_a_slice_without_body_among_others_is_compared_in_the_full_frame():
  mask = MASK.copy()
  mask[1] = False
  values = score('drift', CT[INDICES + 2], mask=mask)
  assert values['nearest_offset'] == 2


@pytest.mark.parametrize(('rows', 'columns'), [(2, 0), (0, -3), (-1, 2)])
def test_a_shift_in_plane_is_measured_in_mm(rows, columns):
  moved = np.roll(CT[INDICES], (rows, columns), (1, 2))
  expected = np.hypot(rows * PIXEL[0], columns * PIXEL[1])
  values = score('drift', moved)
  assert values['in_plane'] == pytest.approx(expected, abs=0.5)
  assert values['in_plane_truth'] < 0.6


def test_two_coarse_pixels_are_within_reach():
  moved = np.roll(CT[INDICES], 2, 1)
  values = score('drift', moved, pixel=(9.0, 9.0))
  assert values['in_plane'] == pytest.approx(18, abs=1.5)


@pytest.mark.parametrize('rows', [4, -4, 5])
def test_a_shift_as_far_as_the_search_or_further_is_no_small_one(rows):
  moved = np.roll(CT[INDICES], rows, 1)  # 4 rows are 16 mm
  assert score('drift', moved)['in_plane'] > 12


def test_slices_at_the_ends_are_compared_with_those_that_exist():
  ends = np.array([USABLE.start, USABLE.stop - 1, 9])
  values = score('drift', CT[ends], indices=ends)
  assert values['nearest'] == 1
  assert values['through_plane'] == 0


def test_a_copy_of_the_source_does_not_drift_and_is_out_of_control():
  copy = MR[INDICES]
  assert score('drift', copy)['through_plane'] == 0
  values = score('control', copy)
  for reader in ('read', 'classified'):
    assert values[reader] == 0
    assert values[f'{reader}_source'] == values[f'{reader}_truth'] == 1


def test_two_of_three_slices_of_the_wrong_modality():
  mixed = np.stack([CT[5], MR[9], MR[13]])
  values = score('control', mixed)
  assert values['read'] == values['classified'] == pytest.approx(1 / 3)
  assert values['read_source'] == pytest.approx(2 / 3)


def test_what_cannot_be_read_is_neither_target_nor_source():
  values = score('control', CT[INDICES], read=lambda images: [None] * 3)
  assert values['read'] == values['read_source'] == values['read_truth'] == 0
  assert values['classified'] == 1


def test_a_system_that_answers_no_questions_has_no_answers_to_score():
  values = score('control', CT[INDICES], read=None)
  assert values.keys() == {
    'classified',
    'classified_source',
    'classified_truth',
  }


def following(*, instruction):
  """Obeys: the reverse instruction makes the source of its target again."""
  assert instruction == ROUTE.reverse
  return MR[INDICES]


def test_a_model_that_follows_the_instruction_turns_by_one():
  values = score('direction', CT[INDICES], following)
  assert values == pytest.approx(
    {'given': 1, 'swapped': 0, 'turn': 1, 'reversed': 0, 'inverted': 0},
    abs=1e-6,
  )


def test_outputs_of_the_reverse_route_turn_by_minus_one():
  values = score('direction', MR[INDICES], lambda **changes: CT[INDICES])
  assert values == pytest.approx(
    {'given': 0, 'swapped': 1, 'turn': -1, 'reversed': 1, 'inverted': 1},
    abs=1e-6,
  )


def test_a_copy_of_the_source_is_nearer_to_it_without_an_inverted_direction():
  values = score('direction', MR[INDICES], lambda **changes: MR[INDICES])
  assert (values['reversed'], values['inverted']) == (1, 0)


@pytest.mark.parametrize(('images', 'given'), [(MR, 0), (CT, 1)])
def test_a_model_that_ignores_the_instruction_does_not_turn(images, given):
  values = score('direction', images[INDICES], lambda **c: images[INDICES])
  assert values['turn'] == pytest.approx(0, abs=1e-6)
  assert values['given'] == pytest.approx(given, abs=1e-6)


def test_position_is_measured_in_the_body_alone():
  halfway = (MR[INDICES] + CT[INDICES]) / 2
  halfway[~MASK] = 7.0
  ends = MR[INDICES], CT[INDICES]
  np.testing.assert_allclose(position(halfway, *ends, MASK), 0.5, rtol=1e-5)


def test_use_is_the_loss_without_a_condition():
  asked = []

  def again(*, withheld):
    asked.append(withheld)
    # Only the latents matter to this model.
    return np.zeros_like(MASK, np.float32) if 'vae' in withheld else CT[INDICES]

  values = score('use', CT[INDICES], again)
  assert asked == [('text',), ('vit',), ('vae',)]
  assert values['words'] == values['vit'] == pytest.approx(0, abs=1e-6)
  assert values['latents'] > 0.5


def test_use_is_a_difference_of_the_reported_ssim():
  worse = CT[INDICES] - 0.3
  values = score('use', CT[INDICES], lambda withheld: worse)
  (scores,) = case_metrics(
    worse, CT[INDICES], MASK, unit_range=(-1000.0, 1000.0), indices=INDICES
  )
  assert values['vit'] == pytest.approx(1 - scores['ssim'], abs=1e-5)


def test_a_condition_that_is_withheld_anyway_has_no_use():
  values = score(
    'use', CT[INDICES], lambda withheld: CT[INDICES], withheld=('vae',)
  )
  assert values.keys() == {'words', 'vit'}


def test_without_an_instruction_there_is_no_direction():
  assert score('direction', CT[INDICES], withheld=('text',)) == {}


def test_slices_without_body_are_compared_in_the_full_frame():
  empty = np.zeros_like(MASK)
  ends = MR[INDICES], CT[INDICES]
  np.testing.assert_allclose(position(CT[INDICES], *ends, empty), 1, rtol=1e-5)
  values = score('use', CT[INDICES], lambda withheld: CT[INDICES], mask=empty)
  assert values['vit'] == pytest.approx(0, abs=1e-6)


def test_several_sources_have_no_direction():
  several = route_named('brats_t1+t2_to_flair')
  assert not ADHERENCE['direction'].applies(several)
  assert ADHERENCE['use'].applies(several)
