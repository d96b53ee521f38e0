"""Checksums change with every bit and are equal on devices and the host."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synermedgen_jax.checkpoint.checksums import begin_checksums, checksums


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
