"""A translated volume lies on its source, edges included."""

import tracemalloc

import nano
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from synermedgen_jax.core.modalities import Modality, route_named
from synermedgen_jax.inference.sampling import SamplingConfig
from synermedgen_jax.inference.translation import UntrainedRoute, translate
from synermedgen_jax.inference.volume import Synthesiser
from synermedgen_jax.inference.workdir import Trained
from synermedgen_jax.input.tokenizer import PROJECT, load_tokenizer
from synermedgen_jax.slices.framing import SliceSpec
from synermedgen_jax.slices.grids import PLANES
from synermedgen_jax.slices.volumes import Volume, VolumeError

CBCT_TO_CT = route_named('pelvis_cbct_to_ct')
MR_TO_CT = route_named('pelvis_mr_to_ct')
SAMPLING = SamplingConfig(points=2, shift=1.0)
# Float32 of values up to 1000, through two resamplings and two windows.
ROUNDING_HU = 2e-3


def trained(slices, routes=None) -> Trained:
  return Trained(
    nano.BAGEL,
    {},
    load_tokenizer(PROJECT),
    nano.GEOMETRY,
    {},
    slices,
    routes,
  )


@pytest.fixture(scope='module', autouse=True)
def identity():
  """A model that returns the source slices."""
  with pytest.MonkeyPatch.context() as patch:

    def synthesise(self, route, sources, *, seed, progress):
      progress(sources.shape[1])
      return sources[0].copy()

    patch.setattr(Synthesiser, 'synthesise', synthesise)
    yield


def affine_of(spacing, *, rotation=(0, 0, 0), flips=(1, 1, 1), shear=0.0):
  turn = Rotation.from_euler('xyz', rotation, degrees=True).as_matrix()
  skew = np.eye(3)
  skew[0, 2] = skew[1, 0] = shear
  affine = np.eye(4)
  affine[:3, :3] = turn @ skew @ np.diag(np.multiply(spacing, flips))
  affine[:3, 3] = (-31, 12, 577)
  return affine


def linear_field(shape, affine, direction=(0.5, -0.7, 0.6)):
  """HU that rise linearly in the world, from -990 to 990 over the volume."""
  places = np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T
  field = places @ np.asarray(direction)
  field -= field.min()
  return Volume((field / field.max() * 1980 - 990).astype(np.float32), affine)


def error(volume, **spec):
  model = trained(SliceSpec(**spec))
  result = translate(
    model,
    {Modality.CBCT: volume},
    CBCT_TO_CT,
    sampling=SAMPLING,
    force=True,
  )
  np.testing.assert_array_equal(result.affine, volume.affine)
  return result.data - volume.data


GEOMETRIES = {
  'isotropic': affine_of((2, 2, 2)),
  'anisotropic': affine_of((1.1, 2.3, 5)),
  'left-handed': affine_of((2, 2, 3), flips=(-1, 1, 1)),
  'descending': affine_of((2, 2, 3), flips=(-1, -1, -1)),
  'oblique': affine_of((2, 2, 3), rotation=(12, -8, 20)),
  'rotated': affine_of((2, 2, 3), rotation=(90, 0, 90)),
  'sheared': affine_of((2, 2, 3), shear=0.2),
}
SHAPES = {'wide': (30, 21, 9), 'odd': (17, 29, 8), 'single': (23, 18, 1)}


@pytest.mark.parametrize('canvas', [(11, 11), (32, 32), (24, 13)])
@pytest.mark.parametrize('shape', SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize('affine', GEOMETRIES.values(), ids=GEOMETRIES)
def test_a_linear_field_comes_back_at_every_voxel(affine, shape, canvas):
  for plane in PLANES:
    away = error(linear_field(shape, affine), canvas=canvas, plane=plane)
    assert np.abs(away).max() < ROUNDING_HU, plane


@pytest.mark.parametrize('shear', [0.01, 0.015625])
def test_a_canvas_slightly_beyond_the_voxel_centres_is_exact(shear):
  affine = affine_of((1, 1, 1), flips=(-1, -1, -1), shear=shear)
  volume = linear_field((12, 12, 16), affine, (1, 1, 1))
  away = error(volume, canvas=(16, 16), plane='sagittal')
  assert np.abs(away).max() < ROUNDING_HU


@settings(max_examples=25, deadline=None)
@given(
  spacing=st.tuples(*[st.floats(0.8, 3)] * 3),
  rotation=st.tuples(*[st.floats(-180, 180)] * 3),
  flips=st.tuples(*[st.sampled_from([-1, 1])] * 3),
  shear=st.floats(-0.2, 0.2),
  shape=st.tuples(*[st.integers(12, 24)] * 3),
  direction=st.tuples(*[st.floats(0.1, 1)] * 3),
  canvas=st.tuples(*[st.integers(16, 50)] * 2),
  plane=st.sampled_from(list(PLANES)),
)
def test_a_linear_field_comes_back_in_any_geometry(
  spacing, rotation, flips, shear, shape, direction, canvas, plane
):
  affine = affine_of(spacing, rotation=rotation, flips=flips, shear=shear)
  volume = linear_field(shape, affine, direction)
  away = error(volume, canvas=canvas, plane=plane)
  assert np.abs(away).max() < ROUNDING_HU


@pytest.mark.parametrize('canvas', [13, 16, 40])
@pytest.mark.parametrize('name', ['anisotropic', 'left-handed', 'oblique'])
def test_in_the_frame_of_the_body_the_rest_is_air(name, canvas):
  """The field is body, and its sides are air beyond the frame."""
  shape = (40, 30, 6)
  volume = linear_field(shape, GEOMETRIES[name], (0.1, 0.1, 0.1))
  body = np.zeros(shape, bool)
  body[12:26, 10:22] = True
  field = np.where(body, volume.data / 3, -1000).astype(np.float32)
  source = Volume(field, volume.affine)
  spec = {'canvas': (canvas, canvas), 'frame': 'body'}
  made = error(source, **spec) + field
  inside = np.zeros(shape, bool)
  inside[15:23, 13:19] = True  # further from the air than the filter reaches
  if canvas == 40:
    assert np.abs(made - field)[inside].max() < ROUNDING_HU
  np.testing.assert_array_equal(made[:6], -1000)
  np.testing.assert_array_equal(made[-6:], -1000)
  assert made[body].mean() > -400


@pytest.mark.parametrize('canvas', [64, 256])
@pytest.mark.parametrize('rows', [100, 101, 128])
def test_tissue_up_to_the_edge_is_not_mixed_with_air(rows, canvas):
  data = np.full((128, rows, 2), 60, np.float32)
  data[60:68, 40:60] = 300
  away = error(Volume(data, np.diag([1.0, 1, 3, 1])), canvas=(canvas, canvas))
  for edge in (away[:9], away[-9:], away[:, :9], away[:, -9:]):
    assert np.abs(edge).max() < ROUNDING_HU


def test_a_volume_narrower_than_a_pixel_comes_back():
  volume = linear_field((1, 40, 9), np.diag([1.0, 2, 3, 1]))
  assert np.abs(error(volume, canvas=(8, 8))).max() < ROUNDING_HU


def test_padding_and_metal_do_not_reach_their_neighbours():
  """Values beyond the window count as its ends when slices are sampled."""
  data = np.full((40, 40, 2), 40, np.float32)
  data[:, :10] = -1000
  padded, metal = data.copy(), data.copy()
  padded[:, :6] = -3024
  metal[20:24, 20:24] = 20_000
  for volume, same in ((padded, data), (metal, metal.clip(-1000, 1000))):
    result, expected = (
      error(Volume(x, np.diag([2.0, 2, 3, 1])), canvas=(17, 17)) + x
      for x in (volume, same)
    )
    np.testing.assert_allclose(result, expected, atol=ROUNDING_HU)


def body(shape=(20, 20, 4)):
  data = np.full(shape, -1000, np.float32)
  data[4:-4, 4:-4] = np.random.default_rng(0).normal(40, 90, (12, 12, 4))
  return data


def run(data, route=CBCT_TO_CT, routes=None, **options):
  model = trained(SliceSpec((16, 16)), routes)
  volume = Volume(np.asarray(data, np.float32), np.eye(4))
  volumes = {route.source: volume}
  return translate(model, volumes, route, sampling=SAMPLING, **options)


def test_memory_holds_at_most_three_copies_of_source_and_target():
  """The model returns a copy of its input, and takes no memory itself."""
  volume = linear_field((64, 60, 40), GEOMETRIES['isotropic'])
  tracemalloc.start()
  try:
    error(volume, canvas=(64, 64))
    _, more = tracemalloc.get_traced_memory()
  finally:
    tracemalloc.stop()
  both = 2 * volume.data.nbytes
  assert volume.data.nbytes + more <= 3 * both


def test_a_route_that_was_not_trained_is_refused_unless_forced():
  routes = ('pelvis_ct_to_cbct', 'pelvis_mr_to_ct')
  with pytest.raises(UntrainedRoute) as refused:
    run(body(), routes=routes)
  assert str(refused.value) == (
    'the run: was not trained on pelvis_cbct_to_ct, only on '
    'pelvis_ct_to_cbct, pelvis_mr_to_ct; choose one of these, or --force to '
    'translate anyway.'
  )
  run(body(), routes=routes, force=True)
  run(body(), routes=(*routes, CBCT_TO_CT.name))
  run(body(), routes=None)  # not known


def test_values_that_are_not_those_of_the_source_are_refused_unless_forced():
  with pytest.raises(VolumeError, match=r'as MRI: .*possibly a CT'):
    run(body(), MR_TO_CT)
  with pytest.raises(VolumeError, match=r'as CBCT in HU: .*shifted by 1024'):
    run(body() + 1024)
  run(body() + 1024, force=True)
