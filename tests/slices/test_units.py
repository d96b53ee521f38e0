"""Values in a wrong unit are recognised, and real volumes are not suspected."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synermedgen_jax.core.modalities import Modality
from synermedgen_jax.slices.units import check_units, suspicious_units
from synermedgen_jax.slices.volumes import Volume, VolumeError, read_volume
from synermedgen_jax.slices.windows import Window, body_mask

CT, CBCT, PET, MR, T1 = (
  Modality.CT,
  Modality.CBCT,
  Modality.PET,
  Modality.MR,
  Modality.T1,
)
DATA = Path(__file__).parents[1] / 'data'
CROPS = {
  CT: ('sts/STS_035/ct.nii.gz', 'sts/STS_042/ct.nii.gz', 'lung/ct.mha'),
  PET: ('sts/STS_035/pet.nii.gz', 'sts/STS_042/pet.nii.gz'),
  MR: (
    'sts/STS_035/mr.nii.gz',
    'sts/STS_042/mr.nii.gz',
    *(f'openms/patient26/{c}.nii.gz' for c in ('t1', 't1ce', 't2', 'flair')),
  ),
}
FILES = [(m, name) for m, names in CROPS.items() for name in names]
VOXELS = {name: read_volume(DATA / name).data for _, name in FILES}


def signs(modality, data):
  data = np.asarray(data, np.float32)
  return suspicious_units(modality, Volume(data, np.eye(4)))


def body(ct):
  mask = body_mask(CT, ct.transpose(2, 1, 0), Window(-1000, 1000))
  return mask.transpose(2, 1, 0)


def outside(ct, value):
  """A CT cropped to the body, as SynthRAD's."""
  return np.where(body(ct), ct, value)


def padded(data, value):
  data = data.copy()
  data[:9] = data[-9:] = value
  return data


def metal(data, value):
  data = data.copy()
  data[20:24, 30:34] = value
  return data


def noisy(data, sigma):
  return data + np.random.default_rng(0).normal(0, sigma, data.shape)


def scores(data):
  return (data - data.mean()) / data.std()


GOOD = {
  CT: {
    'as stored': lambda x: x,
    'outside -1000': lambda x: outside(x, -1000),
    'outside -1024': lambda x: outside(x, -1024),
    'outside 0': lambda x: outside(x, 0),
    'padding -2000': lambda x: padded(x, -2000),
    'padding -3024': lambda x: padded(x, -3024),
    'padding -32768': lambda x: padded(x, -32768),
    'metal 3071': lambda x: metal(x, 3071),
    'metal 20000': lambda x: metal(x, 20_000),
    'clipped': lambda x: x.clip(-1000, 1000),
    'noise': lambda x: noisy(x, 60),
  },
  CBCT: {
    'as stored': lambda x: x,
    'noise': lambda x: noisy(x, 100),
    'scale': lambda x: 0.75 * x + 50,
    'offset': lambda x: x + 150,
    'clipped': lambda x: x.clip(-700, 1500),
  },
  MR: {
    'as stored': lambda x: x,
    'z-scored': scores,
    'from 0 to 1': lambda x: x / x.max(),
    'times 100': lambda x: 100 * x,
    'ringing': lambda x: noisy(x, 5),
  },
  PET: {
    'as stored': lambda x: x,
    'noise': lambda x: noisy(x, 0.02),
    'bladder': lambda x: np.where(x > 10, 90, x),
  },
}


def unsigned(data):
  return data.astype(np.int16).view(np.uint16)


BAD = {
  CT: {
    'no intercept': (lambda x: x + 1024, 'shifted by 1024'),
    'no intercept, clipped': (lambda x: (x + 1024).clip(0), 'shifted by 1024'),
    'no intercept, padding': (lambda x: padded(x + 1024, -2000), '1024'),
    'no intercept, noise': (lambda x: noisy(x + 1024, 60), 'shifted by 1024'),
    'no intercept, body': (lambda x: outside(x, -1024) + 1024, '1024'),
    'intercept twice': (lambda x: x - 1024, 'below -1500'),
    '8 bit': (
      lambda x: ((x.clip(-1000, 1000) + 1000) / 2000 * 255).round(),
      '8-bit or windowed',
    ),
    'windowed': (lambda x: x.clip(-160, 240), 'voxels are near -160'),
    'from 0 to 1': (lambda x: (x + 1000) / 2500, 'normalised'),
    'from -1 to 1': (lambda x: x.clip(-1000, 1000) / 1000, 'normalised'),
    'z-scored': (scores, 'normalised'),
    'z-scored, padding': (lambda x: padded(scores(x), -1000), 'normalised'),
    'without sign': (unsigned, 'above 60000'),
    'attenuation': (lambda x: 192 * (1 + x / 1000), ''),
    'half': (lambda x: x / 2, 'another scale'),
    'tenfold': (lambda x: 10 * x, 'below -1500'),
    '+ 32768': (lambda x: x + 32_768, ''),
  },
  CBCT: {
    'no intercept': (lambda x: x + 1024, 'shifted by 1024'),
    '8 bit': (
      lambda x: ((x.clip(-1000, 1000) + 1000) / 2000 * 255).round(),
      '8-bit or windowed',
    ),
    'from 0 to 1': (lambda x: (x + 1000) / 2500, 'normalised'),
    'without sign': (unsigned, 'above 60000'),
  },
  PET: {
    'Bq/ml': (lambda x: 3000 * x, 'Bq/ml'),
    'counts': (lambda x: (x / x.max() * 32_767).round(), 'counts'),
    '8 bit': (lambda x: (x / x.max() * 255).round(), ''),
    'MBq/ml': (lambda x: 0.004 * x, 'normalised'),
    'from 0 to 1': (lambda x: x / x.max(), 'normalised'),
    'z-scored': (scores, 'negative values'),
    'negative': (lambda x: -x, 'negative values'),
  },
  MR: {
    'without sign': (lambda x: unsigned(x - x.max() / 50 - 20), '60000'),
    'background -1000': (
      lambda x: np.where(x < 0.2 * x.max(), -1000, x),
      'a background other than 0',
    ),
  },
}


def crops(modality):
  return CROPS[CT if modality is CBCT else modality]


@pytest.mark.parametrize(
  ('modality', 'change', 'name'),
  [(m, c, n) for m, changes in GOOD.items() for c in changes for n in crops(m)],
)
def test_a_real_volume_in_its_unit_is_not_suspected(modality, change, name):
  assert signs(modality, GOOD[modality][change](VOXELS[name])) == []


@pytest.mark.parametrize(
  ('modality', 'change', 'name'),
  [(m, c, n) for m, changes in BAD.items() for c in changes for n in crops(m)],
)
def test_a_real_volume_in_another_unit_is(modality, change, name):
  alter, words = BAD[modality][change]
  (line,) = signs(modality, alter(VOXELS[name]))
  assert line.startswith('values from ')
  assert words in line


@pytest.mark.parametrize(
  ('named', 'is_really'),
  [(CT, MR), (CT, PET), (CBCT, MR), (MR, CT), (PET, CT), (PET, MR)],
)
def test_exchanged_modalities_are_suspected(named, is_really):
  for name in CROPS[is_really]:
    assert signs(named, VOXELS[name]), name


def test_no_modality_without_a_unit_of_its_own_is_judged():
  """A project may register modalities whose values are not known."""
  assert signs(MR, VOXELS['sts/STS_035/pet.nii.gz']) == []


@settings(max_examples=20, deadline=None)
@given(
  offset=st.floats(-40, 40),
  scale=st.floats(0.93, 1.07),
  name=st.sampled_from(CROPS[CT]),
)
def test_a_scanner_slightly_off_is_not_suspected(offset, scale, name):
  assert signs(CT, VOXELS[name] * scale + offset) == []


@settings(max_examples=20, deadline=None)
@given(
  offset=st.floats(950, 1050),
  noise=st.floats(0, 60),
  name=st.sampled_from(CROPS[CT]),
)
def test_any_shift_by_about_1024_is_suspected(offset, noise, name):
  (line,) = signs(CT, noisy(VOXELS[name], noise) + offset)
  assert 'shifted by 1024' in line


@settings(max_examples=20, deadline=None)
@given(factor=st.floats(500, 20_000), name=st.sampled_from(CROPS[PET]))
def test_any_activity_is_suspected(factor, name):
  (line,) = signs(PET, VOXELS[name] * factor)
  assert 'Bq/ml' in line


@pytest.mark.parametrize(('length', 'suspected'), [(200, 0), (1000, 1)])
def test_the_mean_of_a_body_is_known_but_not_that_of_a_part(length, suspected):
  """kBq/ml are three to five times the SUV, as a brain's are those of a leg."""
  data = VOXELS['sts/STS_035/pet.nii.gz'] * 4.3
  affine = np.diag([5, 5, length / data.shape[2], 1.0])
  assert len(suspicious_units(PET, Volume(data, affine))) == suspected


def test_the_refusal_names_file_modality_numbers_and_the_override():
  data = VOXELS['sts/STS_035/ct.nii.gz'] + 1024
  with pytest.raises(VolumeError) as refused:
    check_units(
      'p1/ct.nii.gz', CT, Volume(data, np.eye(4)), override='--nocheck_units'
    )
  assert str(refused.value) == (
    'p1/ct.nii.gz: as CT in HU: values from 24 to 2553: no air and no fat '
    'below -50 HU; shifted by 1024 HU (stored without the intercept), or not '
    'a CT. Convert the volume or name another modality; --nocheck_units '
    'accepts it.'
  )
