import json
import struct

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from synermedgen_jax.core.lazy_array import LazyArray
from synermedgen_jax.interop.tensor_files import (
  TensorFileError,
  read_sharded,
  read_tensors,
  write_tensors,
)

ARRAYS = {
  'a': np.arange(24, dtype=np.float32).reshape(4, 3, 2),
  'b': np.arange(5).astype(jnp.bfloat16),
  'c': np.array(3.5, np.float16),
}


@pytest.fixture
def path(tmp_path):
  save_file(ARRAYS, tmp_path / 'x.safetensors')
  return tmp_path / 'x.safetensors'


def test_tensors_are_read_as_the_library_wrote_them(path):
  tensors = read_tensors(path)
  assert set(tensors) == set(ARRAYS)
  for key, array in ARRAYS.items():
    assert tensors[key].dtype == array.dtype
    np.testing.assert_array_equal(tensors[key].whole(), array)
  piece = (slice(1, 3), slice(0, 2), slice(1, 2))
  np.testing.assert_array_equal(tensors['a'].read(piece), ARRAYS['a'][piece])


def test_the_library_reads_what_is_written(tmp_path):
  path = tmp_path / 'y.safetensors'
  turned = ARRAYS | {'t': np.arange(6.0, dtype=np.float32).reshape(2, 3).T}
  # Row by row, as a large tensor would be.
  lazy = {
    key: LazyArray(a.shape, a.dtype, (1,) * a.ndim, a.__getitem__)
    for key, a in turned.items()
  }
  sizes = []
  write_tensors(path, lazy, sizes.append)
  assert sum(sizes) == sum(a.nbytes for a in turned.values())
  for key, array in load_file(path).items():
    assert array.dtype == turned[key].dtype
    np.testing.assert_array_equal(array, turned[key])
  # PyTorch's loaders ask for it.
  text = path.read_bytes()
  length = struct.unpack('<Q', text[:8])[0]
  assert json.loads(text[8 : 8 + length])['__metadata__'] == {'format': 'pt'}


def test_an_unfinished_file_does_not_exist(tmp_path):
  def fail(index):
    raise OSError('no more')

  lazy = {
    'a': LazyArray.of(ARRAYS['a']),
    'b': LazyArray((2,), np.dtype('float32'), (2,), fail),
  }
  with pytest.raises(OSError, match='no more'):
    write_tensors(tmp_path / 'y.safetensors', lazy)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('cut', [0, 7, 20])
def test_a_file_cut_off_within_its_header_is_named(path, cut):
  path.write_bytes(path.read_bytes()[:cut])
  with pytest.raises(TensorFileError, match=r'x\.safetensors.*header'):
    read_tensors(path, header_only=True)


def test_a_file_cut_off_within_its_data_has_its_header(path):
  path.write_bytes(path.read_bytes()[:-1])
  with pytest.raises(TensorFileError, match='damaged or truncated'):
    read_tensors(path)
  assert read_tensors(path, header_only=True)['a'].shape == (4, 3, 2)


def _write_header(path, header):
  text = json.dumps(header).encode()
  path.write_bytes(struct.pack('<Q', len(text)) + text + bytes(8))


@pytest.mark.parametrize(
  ('entry', 'message'),
  [
    ({'dtype': 'U64', 'shape': [1], 'data_offsets': [0, 8]}, 'k has dtype U64'),
    (
      {'dtype': 'F32', 'shape': [3], 'data_offsets': [0, 8]},
      'wrong offsets of k',
    ),
    (
      {'dtype': 'F32', 'shape': [1], 'data_offsets': [4, 8]},
      'wrong offsets of k',
    ),
    ({'dtype': 'F32', 'shape': [2]}, 'is not a safetensors file'),
    (3, 'is not a safetensors file'),
  ],
)
def test_an_invalid_header_is_reported(path, entry, message):
  _write_header(path, {'k': entry})
  with pytest.raises(TensorFileError, match=message):
    read_tensors(path)


def _write_index(folder, places):
  (folder / 'i.json').write_text(json.dumps({'weight_map': places}))
  return folder / 'i.json'


def test_an_index_joins_its_files(path, tmp_path):
  save_file({'d': ARRAYS['a']}, tmp_path / 'z.safetensors')
  places = dict.fromkeys(ARRAYS, 'x.safetensors') | {'d': 'z.safetensors'}
  tensors = read_sharded(_write_index(tmp_path, places))
  assert set(tensors) == {*ARRAYS, 'd'}
  np.testing.assert_array_equal(tensors['d'].whole(), ARRAYS['a'])


@pytest.mark.parametrize(
  ('places', 'message'),
  [
    ({'a': 'x.safetensors', 'b': 'x.safetensors'}, 'in c'),
    (dict.fromkeys('abcd', 'x.safetensors'), 'in d'),
    ({'a': 'gone.safetensors'}, r'lists gone\.safetensors'),
    (None, 'is not an index'),
  ],
)
def test_an_index_that_does_not_fit_its_files_is_reported(
  path, tmp_path, places, message
):
  with pytest.raises(TensorFileError, match=message):
    read_sharded(_write_index(tmp_path, places))
