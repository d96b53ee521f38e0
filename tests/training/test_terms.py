"""The terms of a step are one array, and read like a dictionary."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from synermedgen_jax.training.terms import Terms

SCALARS = {'loss': (jnp.float32(6), 2), 'grad_norm': (jnp.float32(5), 1.0)}


def test_they_come_from_a_compiled_function_as_one_array():
  terms = jax.device_get(jax.jit(lambda: Terms.of(SCALARS))())
  (array,) = jax.tree.leaves(terms)
  np.testing.assert_array_equal(array, [[5, 1], [6, 2]])
  assert dict(terms) == {'grad_norm': (5.0, 1.0), 'loss': (6.0, 2.0)}
  assert len(terms) == 2


def test_their_names_are_known_without_computing():
  shapes = jax.eval_shape(lambda: Terms.of(SCALARS))
  assert set(shapes) == {'loss', 'grad_norm'}
  assert shapes.numbers.shape == (2, 2)


def test_a_term_that_is_not_there_is_named():
  with pytest.raises(KeyError, match='flow'):
    Terms.of(SCALARS)['flow']
