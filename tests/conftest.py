"""Checks array shapes and types of the package while tests run."""

import hypothesis
import jax
import jaxtyping
import numpy as np
import pytest

# What takes a JAX array takes NumPy's too, as JAX's own functions do.
jaxtyping.Array = jax.Array | np.ndarray
# Before anything imports the package, or its modules go unchecked.
jaxtyping.install_import_hook('synermedgen_jax', 'type_checks.check')


@pytest.fixture(scope='session')
def store_path(tmp_path_factory):
  """A finished slice store; its pixels tell what they are of."""
  from store_fakes import write_store

  path = tmp_path_factory.mktemp('slices') / 'store'
  write_store(path)
  return path


# How long a case takes says more of the machine's load than of the code.
hypothesis.settings.register_profile('no_deadline', deadline=None)
hypothesis.settings.load_profile('no_deadline')
