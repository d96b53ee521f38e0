"""Runs whose results are averaged have one window of the target."""

import dataclasses

import numpy as np
import pytest

from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.modalities import Modality, route_named
from synermedgen_jax.inference.prediction import Predictor
from synermedgen_jax.inference.prediction_runs import PredictSettings, Runs
from synermedgen_jax.slices.framing import SliceSpec
from synermedgen_jax.slices.volumes import Volume
from synermedgen_jax.slices.windows import FIXED_WINDOWS, Window

CT, MR = Modality.CT, Modality.MR
ROUTE, BACK = route_named('pelvis_mr_to_ct'), route_named('pelvis_ct_to_mr')


class Copies:
  """Synthesises the first source."""

  def synthesise(self, route, sources, *, seed=0, progress=None):
    return sources[0]


@dataclasses.dataclass
class Run:
  """A run of a store with these windows."""

  windows: dict
  title: str = 'Copies'
  routes: tuple[str, ...] = (ROUTE.name, BACK.name)

  @property
  def slices(self):
    return SliceSpec((8, 8), windows={**FIXED_WINDOWS, **self.windows})

  def synthesiser(self, *_, **__):
    return Copies()


PLAIN, WIDE = Run({}), Run({CT: Window(-1000, 2000)})
MR_VOLUME = Volume(
  np.random.default_rng(0).uniform(1, 99, (8, 8, 4)).astype(np.float32),
  np.diag([2.0, 2.0, 2.0, 1.0]),
)


def predicted(*runs):
  predictor = Predictor(runs, read=False)
  return predictor.predict({MR: MR_VOLUME}, ROUTE, progress=[].append)


def test_runs_of_one_window_of_the_target_are_averaged():
  other = Run({MR: Window(0, 200)})  # a window of the source
  one, two, both = predicted(PLAIN), predicted(other), predicted(PLAIN, other)
  assert both.window == Window(-1000, 1000)
  np.testing.assert_allclose(
    both.volume.data, (one.volume.data + two.volume.data) / 2, atol=1e-3
  )
  assert np.abs(one.volume.data - two.volume.data).max() > 100


def test_several_windows_of_the_target_are_refused_with_their_runs():
  with pytest.raises(UserError) as error:
    predicted(PLAIN, WIDE)
  assert str(error.value) == (
    'The runs have other windows of CT and cannot be averaged: '
    'run 1 (-1000 to 1000 HU), run 2 (-1000 to 2000 HU); name one of them, or '
    'runs of one window.'
  )


def runs_of(**systems):
  runs = Runs(PredictSettings(list(systems), stages=('stage2',)))
  vars(runs)['systems'] = systems
  return runs


@pytest.mark.parametrize(
  ('other', 'route', 'windows'),
  [
    (WIDE, ROUTE, r'a \(-1000 to 1000 HU\), b \(-1000 to 2000 HU\)'),
    # An MR of its own window has no scale, one of a fixed window has.
    (
      Run({MR: Window(0, 1000)}),
      BACK,
      r'a \(the window of each volume\), b \(0 to 1000 a\.u\.\)',
    ),
  ],
)
def test_runs_are_refused_before_they_are_loaded(other, route, windows):
  with pytest.raises(UserError, match=windows):
    runs_of(a=PLAIN, b=other).check('a', route)


def test_a_window_of_a_source_may_differ():
  runs_of(a=PLAIN, b=WIDE).check('b', BACK)
