"""Skipped steps and spikes are logged with their examples."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synermedgen_jax.training.incidents import BadStepsError, Incidents

# Two rows of places, of which -1 holds none.
NUMBERS = np.array([[7, 9, -1], [4, -1, -1]])
EXAMPLES = [
  {'number': 4, 'task': 'mi', 'images': ['case4 ct 1']},
  {'number': 7, 'task': 'mi', 'images': ['case7 ct 1']},
  {'number': 9, 'task': 'mi', 'images': ['case9 ct 1']},
]


def describe(numbers):
  return [
    {'number': int(n), 'task': 'mi', 'images': [f'case{n} ct 1']}
    for n in np.unique(numbers)
    if n >= 0
  ]


def incidents(workdir, start=0, at_most=3):
  return Incidents(workdir, start, describe, at_most=at_most)


def sums(loss=1.0, *, of_loss=0.0, of_gradient=0.0):
  """Terms of a step; those of a skipped step count for nothing."""
  fine = not (of_loss or of_gradient)
  return {
    'loss': (np.float32(loss), 1.0) if fine else (0.0, 0.0),
    'skipped/loss': (of_loss, 1.0),
    'skipped/gradient': (of_gradient, 1.0),
    'skipped/update': (0.0, 1.0),
  }


BAD = sums(of_gradient=1.0)


def look(watch, step, values):
  return watch.inspect(step, values, NUMBERS)


def rows(workdir):
  path = workdir / 'incidents.jsonl'
  text = path.read_text() if path.exists() else ''
  return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize(
  ('values', 'cause'),
  [
    (sums(of_loss=1.0), 'loss'),
    (sums(of_gradient=1.0), 'gradient'),
    (sums(of_loss=1.0, of_gradient=1.0), 'loss'),
  ],
  ids=['loss', 'gradient', 'both'],
)
def test_a_skipped_step_is_logged_with_its_cause_and_examples(
  tmp_path, values, cause
):
  watch = incidents(tmp_path)
  assert look(watch, 5, values) == (
    f'step 5 is skipped: its {cause} is not finite'
  )
  assert rows(tmp_path) == [
    {'step': 5, 'kind': 'skipped', 'cause': cause, 'examples': EXAMPLES}
  ]
  assert watch.skipped == 1


def test_a_good_step_is_not_logged(tmp_path):
  watch = incidents(tmp_path)
  assert look(watch, 1, sums()) == ''
  assert rows(tmp_path) == []
  assert watch.skipped == 0


def test_skipped_steps_are_counted_on_after_a_resume(tmp_path):
  first = incidents(tmp_path)
  for step, values in enumerate((BAD, sums(), BAD, sums(), BAD), start=1):
    look(first, step, values)
  assert first.skipped == 3
  # From a checkpoint of step 4: the fifth is made again, and is good now.
  again = incidents(tmp_path, start=4)
  assert again.skipped == 2
  look(again, 5, sums())
  look(again, 6, BAD)
  assert again.skipped == 3
  assert [row['step'] for row in rows(tmp_path)] == [1, 3, 6]


def test_spikes_are_not_counted_as_skipped_after_a_resume(tmp_path):
  row = {'step': 1, 'kind': 'spike', 'loss': 9.0, 'usual': 1.0, 'examples': []}
  (tmp_path / 'incidents.jsonl').write_text(json.dumps(row) + '\n')
  assert incidents(tmp_path, start=2).skipped == 0


def test_more_skipped_steps_in_a_row_than_are_borne_end_the_run(tmp_path):
  watch = incidents(tmp_path, at_most=2)
  for step in (11, 12):
    look(watch, step, BAD)
  with pytest.raises(BadStepsError) as error:
    look(watch, 13, BAD)
  assert str(error.value) == (
    f'{tmp_path}/incidents.jsonl: 3 steps in a row up to step 13 were not '
    'finite; the file lists their examples. Lower config.learning_rate, or '
    'correct the data.'
  )
  # The last step is logged with its examples too.
  assert [row['step'] for row in rows(tmp_path)] == [11, 12, 13]
  assert rows(tmp_path)[-1]['examples'] == EXAMPLES


def test_a_good_step_in_between_begins_a_new_row_of_bad_ones(tmp_path):
  watch = incidents(tmp_path, at_most=2)
  for step, values in enumerate((BAD, BAD, sums(), BAD, BAD, sums()) * 3):
    look(watch, step, values)
  assert watch.skipped == 12


def test_no_bad_step_is_borne_where_none_may_be(tmp_path):
  with pytest.raises(BadStepsError, match='1 steps in a row up to step 1 '):
    look(incidents(tmp_path, at_most=0), 1, BAD)


def messages(watch, losses, first=1):
  """Messages about losses, by step; steps without a message are left out."""
  lines = {
    step: look(watch, step, sums(loss))
    for step, loss in enumerate(losses, start=first)
  }
  return {step: line for step, line in lines.items() if line}


# Their median is 2, and so are the deviations' 0.1 from it.
USUAL = [1.9, 2.1] * 10


def test_a_spike_is_logged_with_its_examples(tmp_path):
  watch = incidents(tmp_path)
  assert messages(watch, [*USUAL, 4.0]) == {
    21: 'step 21: the loss 4 is a spike above 2'
  }
  (row,) = rows(tmp_path)
  assert row == {
    'step': 21,
    'kind': 'spike',
    'loss': 4.0,
    'usual': pytest.approx(2.0),
    'examples': EXAMPLES,
  }
  assert watch.skipped == 0


def test_a_spike_is_beyond_ten_robust_deviations(tmp_path):
  # Ten times 1.4826 times 0.1 above 2.
  assert messages(incidents(tmp_path), [*USUAL, 3.47]) == {}
  assert messages(incidents(tmp_path), [*USUAL, 3.49]).keys() == {21}


def test_the_spread_is_not_that_of_the_spikes(tmp_path):
  # A mean and a standard deviation would have grown too much with the first.
  losses = [*USUAL, 1000.0, *USUAL, 6.0]
  assert messages(incidents(tmp_path), losses).keys() == {21, 42}


def test_a_loss_that_falls_far_is_no_spike(tmp_path):
  assert messages(incidents(tmp_path), [*USUAL, 0.0, -50.0]) == {}


def test_there_is_no_spike_before_there_are_enough_losses(tmp_path):
  assert messages(incidents(tmp_path), [*USUAL[:18], 2.0, 1e6]) == {}
  assert messages(incidents(tmp_path), [*USUAL[:19], 1e6]) == {}
  assert messages(incidents(tmp_path), [*USUAL[:20], 1e6]).keys() == {21}


def test_losses_that_are_all_alike_have_a_spread_of_a_thousandth(tmp_path):
  assert messages(incidents(tmp_path), [2.0] * 20 + [2.019]) == {}
  assert messages(incidents(tmp_path), [2.0] * 20 + [2.021]).keys() == {21}


def test_old_losses_are_forgotten(tmp_path):
  # A loss of 8 is usual after a hundred losses of 8, at any earlier losses.
  losses = [0.1] * 300 + [8.0] * 101
  spikes = messages(incidents(tmp_path), losses)
  assert 301 in spikes
  assert max(spikes) < 360
  assert messages(incidents(tmp_path), [8.0] * 100 + [9.0]).keys() == {101}


def test_skipped_steps_are_not_among_the_losses(tmp_path):
  watch = incidents(tmp_path, at_most=99)
  for step in range(40):
    look(watch, step, BAD)
  # Forty zeros would make a spike of this, and nineteen losses do not.
  assert messages(watch, [*USUAL[:19], 1e6], first=41) == {}


@given(
  level=st.floats(0.1, 10),
  noise=st.floats(0, 0.3),
  fall=st.floats(0, 1),
  seed=st.integers(0, 99),
)
def test_a_loss_that_falls_slowly_and_is_noisy_has_no_spike(
  tmp_path_factory, level, noise, fall, seed
):
  steps = np.arange(200)
  factors = 1 + noise * np.random.default_rng(seed).uniform(-1, 1, 200)
  losses = level * np.exp(-fall * steps / 200) * factors
  watch = incidents(tmp_path_factory.mktemp('quiet'))
  assert messages(watch, losses.tolist()) == {}
