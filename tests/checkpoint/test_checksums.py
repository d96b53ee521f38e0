"""Checksums change with every bit and are equal on devices and the host."""

import json

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synermedgen_jax.checkpoint.checksums import (
  begin_checksums,
  checksums,
  json_checksum,
  lazy_checksum,
)
from synermedgen_jax.core import lazy_array
from synermedgen_jax.core.lazy_array import LazyArray


def tree(seed=0):
  rng = np.random.default_rng(seed)
  return {
    'a': rng.standard_normal((3, 5)).astype(np.float32),
    'b': {'c': rng.standard_normal(7).astype(ml_dtypes.bfloat16)},
    'd': np.arange(4, dtype=np.int32),
    'e': np.float32(2.5).reshape(()),
  }


def test_by_hand():
  two = {'x': np.uint32([1, 2]), 'y': np.uint32([5])}
  golden = 0x9E3779B1
  assert checksums({'two': two}) == {
    'two': (golden * 3 + 3 * golden * 5) % 2**32
  }
  assert checksums({'none': {}}) == {'none': 0}


def test_devices_and_the_host_agree():
  on_devices = jax.tree.map(jnp.asarray, tree())
  assert checksums({'t': on_devices}) == checksums({'t': tree()})


@given(st.sampled_from('abde'), st.integers(0, 10**6), st.integers(0, 31))
def test_every_bit_counts(name, place, bit):
  before, after = tree(), tree()
  leaf = after['b']['c'] if name == 'b' else after[name]
  words = leaf.reshape(-1).view(f'u{leaf.itemsize}')
  words[place % words.size] ^= words.dtype.type(1 << bit % (8 * leaf.itemsize))
  if name == 'e':
    after['e'] = words.view(np.float32).reshape(())
  assert checksums({'t': before}) != checksums({'t': after})


def test_arrays_that_change_places_are_noticed():
  one, other = np.float32([1, 2]), np.float32([3, 4])
  assert checksums({'t': [one, other]}) != checksums({'t': [other, one]})


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16', 'float32', 'int8'])
def test_numbers_of_any_size(dtype):
  values = np.arange(-3, 3).astype(dtype)
  assert checksums({'t': jnp.asarray(values)}) == checksums({'t': values})


def test_checksums_are_those_of_arrays_before_donation():
  values = np.arange(100_000, dtype=np.float32)
  on_device = jax.device_put(values)
  finish = begin_checksums({'t': on_device, 'here': np.float32([1])})
  next_step = jax.jit(lambda x: x + 1, donate_argnums=0)(on_device)
  assert on_device.is_deleted()
  assert finish() == checksums({'t': values, 'here': np.float32([1])})
  np.testing.assert_array_equal(next_step, values + 1)


def test_arrays_read_in_blocks_have_the_checksum_of_the_whole(monkeypatch):
  monkeypatch.setattr(lazy_array, 'BLOCK_BYTES', 8)
  leaves = jax.tree.leaves(tree())
  lazy = [LazyArray.of(leaf) for leaf in leaves]
  sizes = []
  assert lazy_checksum(lazy, sizes.append) == checksums({'t': tree()})['t']
  assert sum(sizes) == sum(leaf.nbytes for leaf in leaves)
  assert max(sizes) <= 8


def test_json_values_have_the_checksum_of_their_file():
  value = {'b': (1, 2.5), 'a': {2: None, 10: 'x'}}
  # zlib.crc32(b'{"a": {"10": "x", "2": null}, "b": [1, 2.5]}')
  assert json_checksum(value) == 3693710292
  assert json_checksum(json.loads(json.dumps(value, indent=2))) == 3693710292
  assert json_checksum(value | {'b': (1, 2.25)}) != 3693710292
