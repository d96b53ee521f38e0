"""The flags of sampling, by what they make of a run's settings."""

import pytest
from absl import flags

from synermedgen_jax.config.sampling import Guidance, SamplingConfig
from synermedgen_jax.core.errors import UserError
from synermedgen_jax.inference.sampling_flags import define_sampling_flags

RUN = SamplingConfig(50, 3.0, Guidance(text=4.0))
DESCRIBES = SamplingConfig(50, 3.0, Guidance(text=4.0), describe_tokens=300)


@pytest.fixture
def given():
  """Returns the flags of a command line."""
  before = set(flags.FLAGS)

  def parse(*arguments):
    defined = define_sampling_flags()
    flags.FLAGS(['command', *arguments])
    return defined

  yield parse
  for name in set(flags.FLAGS) - before:
    delattr(flags.FLAGS, name)


def test_flags_that_are_not_given_keep_the_settings(given):
  sampling = given()
  assert sampling.apply(RUN) == RUN
  assert sampling.apply(DESCRIBES) == DESCRIBES
  sampling.refuse('nothing is sampled')


def test_a_flag_replaces_its_setting_alone(given):
  changed = given('--shift=1', '--interval=0.4,1').apply(RUN)
  assert changed == SamplingConfig(
    50, 1.0, Guidance(text=4.0, interval=(0.4, 1.0))
  )


@pytest.mark.parametrize(
  ('arguments', 'run', 'tokens'),
  [
    (['--describe_first'], RUN, 800),
    (['--describe_first', '--describe_tokens=7'], RUN, 7),
    (['--describe_first'], DESCRIBES, 300),
    (['--describe_tokens=7'], DESCRIBES, 7),
    (['--nodescribe_first'], DESCRIBES, 0),
    (['--nodescribe_first'], RUN, 0),
  ],
)
def test_a_text_comes_first_where_flag_or_run_says_so(
  given, arguments, run, tokens
):
  assert given(*arguments).apply(run).describe_tokens == tokens


@pytest.mark.parametrize('arguments', [[], ['--nodescribe_first']])
def test_a_length_without_a_text_is_refused(given, arguments):
  with pytest.raises(UserError, match='--describe_tokens: has no effect'):
    given('--describe_tokens=7', *arguments).apply(RUN)


def test_flags_without_effect_are_named(given):
  with pytest.raises(UserError) as error:
    given('--points=9').refuse('no slice is synthesised')
  assert str(error.value) == (
    '--points: has no effect, since no slice is synthesised; leave it out.'
  )


def test_several_flags_without_effect_are_named(given):
  with pytest.raises(UserError, match=r'--shift, --describe_first: have no'):
    given('--shift=2', '--nodescribe_first').refuse('no slice is synthesised')
