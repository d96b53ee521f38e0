"""Windows: physical values to [-1, 1] and back, and the body."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from volume_files import disc

from synermedgen_jax.core.modalities import Modality
from synermedgen_jax.slices.windows import (
  Window,
  body_mask,
  choose_window,
  parse_windows,
  windows_from_json,
)

CT, CBCT, PET, MR, T1 = (
  Modality.CT,
  Modality.CBCT,
  Modality.PET,
  Modality.MR,
  Modality.T1,
)
AIR = np.zeros(2, np.float32)


@pytest.mark.parametrize(
  ('modality', 'physical', 'normal'),
  [
    (
      CT,
      [-3024, -1000, -500, 0, 250, 1000, 3000],
      [-1, -1, -0.5, 0, 0.25, 1, 1],
    ),
    (CBCT, [-1000, 1000], [-1, 1]),
    (PET, [-0.2, 0, 5, 10, 40], [-1, -1, 0, 1, 1]),
  ],
)
def test_fixed_windows_hold_for_every_volume(modality, physical, normal):
  window = choose_window(modality, AIR)
  result = window.normalise(np.array(physical, np.float32))
  np.testing.assert_allclose(result, normal, atol=1e-6)


def values(*parts):
  return np.concatenate(parts).astype(np.float32)


def test_mr_window_ends_at_the_percentile_of_the_positive_voxels():
  window = choose_window(MR, values(np.arange(1, 1001)))
  assert window.low == 0
  np.testing.assert_allclose(window.high, 1 + 0.995 * 999, rtol=1e-6)


def test_background_of_zeros_does_not_move_the_mr_window():
  image = values(np.arange(1, 1001))
  padded = values(image, np.zeros(9000))
  assert choose_window(T1, padded) == choose_window(T1, image)


def test_odd_negative_voxels_stay_below_the_mr_window():
  ringing = values(np.full(40, -30), np.arange(1, 1001), np.zeros(500))
  assert choose_window(MR, ringing).low == 0


@pytest.mark.parametrize('zeros', [0, 10_000])
def test_z_scored_mr_keeps_its_negative_half(zeros):
  scores = np.random.default_rng(0).normal(size=1000)
  window = choose_window(MR, values(scores, np.zeros(zeros)))
  assert -3.2 < window.low < -2.3
  assert 2.3 < window.high < 3.2


@pytest.mark.parametrize('data', [np.zeros(9), np.full(9, -4)])
def test_mr_without_a_voxel_above_background_is_refused(data):
  with pytest.raises(ValueError, match='no voxel is above'):
    choose_window(MR, data.astype(np.float32))


@pytest.mark.parametrize(('low', 'high'), [(1, 1), (2, 1), (0, np.nan)])
def test_window_without_width_is_refused(low, high):
  with pytest.raises(ValueError, match='low < high'):
    Window(low, high)


@given(
  low=st.floats(-5000, 5000),
  width=st.floats(0.1, 10_000),
  share=st.floats(0, 1),
)
def test_values_within_a_window_survive_the_round_trip(low, width, share):
  window = Window(low, low + width)
  value = np.array([low + share * width], np.float32)
  normal = window.normalise(value)
  assert -1 <= normal[0] <= 1
  error = abs(float(window.denormalise(normal)[0] - value[0]))
  assert error <= 1e-6 * (width + abs(low)) * 2


def dice(a, b):
  return 2 * (a & b).sum() / (a.sum() + b.sum())


SHAPE = (3, 48, 48)
BODY = disc(SHAPE, 15)


@pytest.mark.parametrize(
  ('modality', 'inside', 'outside'),
  [(CT, 40, -1000), (CBCT, -100, -1000), (PET, 0.6, 0.0), (MR, 300, 4)],
)
def test_body_is_found_by_its_threshold(modality, inside, outside):
  slices = np.where(BODY, inside, outside).astype(np.float32)
  window = choose_window(modality, slices)
  mask = body_mask(modality, slices, window)
  assert mask[disc(SHAPE, 14)].all()
  assert not mask[~disc(SHAPE, 17)].any()


def test_lungs_belong_to_the_body():
  slices = np.where(BODY & ~disc(SHAPE, 6), 40, -1000).astype(np.float32)
  assert dice(body_mask(CT, slices, Window(-1000, 1000)), BODY) > 0.95


def test_arm_is_kept_and_a_speck_is_not():
  arm, speck = disc(SHAPE, 5, (8, 40)), disc(SHAPE, 1.5, (42, 5))
  slices = np.where(BODY | arm | speck, 40, -1000).astype(np.float32)
  mask = body_mask(CT, slices, Window(-1000, 1000))
  assert mask[:, 8, 40].all()
  assert not mask[:, 42, 5].any()


def test_body_of_a_z_scored_brain_leaves_the_zeros_around_it_out():
  scores = np.random.default_rng(0).normal(size=SHAPE)
  slices = np.where(BODY, scores, 0).astype(np.float32)
  mask = body_mask(T1, slices, choose_window(T1, slices))
  assert dice(mask, BODY) > 0.95


def test_all_air_has_no_body():
  slices = np.full(SHAPE, -1000, np.float32)
  assert not body_mask(CT, slices, Window(-1000, 1000)).any()


def test_windows_are_read_from_a_flag():
  result = parse_windows('ct:-1000:2000,pet:0:20.5')
  assert result == {CT: Window(-1000, 2000), PET: Window(0, 20.5)}
  assert parse_windows('') == {}


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('ct', "'ct': expected modality:low:high"),
    ('ct:0', 'expected modality:low:high'),
    ('ct:low:high', 'expected modality:low:high'),
    ('xray:0:1', "Unknown modality 'xray'"),
    ('ct:5:5', 'low < high'),
  ],
)
def test_a_window_that_makes_no_sense_is_refused(text, message):
  with pytest.raises(ValueError, match=message):
    parse_windows(text)


def test_windows_of_a_store_stand_over_the_fixed_ones():
  result = windows_from_json({'ct': {'low': -200.0, 'high': 300.0}})
  assert result[CT] == Window(-200, 300)
  assert result[PET] == Window(0, 10)
