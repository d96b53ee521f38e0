"""The weights and the phantom of the package."""

import nibabel as nib
import numpy as np
import pytest

from synermedgen_jax.core.modalities import Modality
from synermedgen_jax.inference import demo
from synermedgen_jax.inference.workdir import RunRecord
from synermedgen_jax.slices.units import suspicious_units
from synermedgen_jax.slices.volumes import read_volume, same_grid


def test_the_phantom_is_a_pair_on_one_grid():
  volumes = {m: read_volume(path) for m, path in demo.volumes().items()}
  mr, ct = volumes[Modality.MR], volumes[Modality.CT]
  assert same_grid(mr, ct)
  assert not [s for m, v in volumes.items() for s in suspicious_units(m, v)]
  body = ct.data > -500
  assert np.median(mr.data[body]) > 10 * np.median(mr.data[~body])
  assert nib.load(demo.volumes()[Modality.MR]).get_data_dtype() == np.int16


def test_the_weights_synthesise_the_phantoms_ct_and_are_small():
  record = RunRecord.load(demo.weights())
  assert 'brain_mr_to_ct' in record.routes
  files = [p for p in demo.weights().rglob('*') if p.is_file()]
  assert sum(p.stat().st_size for p in files) < 12e6


def test_a_package_without_weights_says_so(monkeypatch, tmp_path):
  monkeypatch.setattr(demo.resources, 'files', lambda name: tmp_path / name)
  with pytest.raises(demo.DemoError, match='has no weights of the demo'):
    demo.weights()
