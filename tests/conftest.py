"""Checks array shapes and types of the package while tests run."""

import gc
import importlib.metadata
import os
import sys

# libtpu is there to compile for TPUs: a host with none should not look for it.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# Without it, one process at a time may compile for TPUs; another one fails.
os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')
# pytest's processes fill the cores: one thread compiles a program in less time
# than several spend in all.
os.environ['XLA_FLAGS'] = ' '.join(
  (
    os.environ.get('XLA_FLAGS', ''),
    '--xla_cpu_parallel_codegen_split_count=1',
  )
)
# LLVM alone compiles fused loops in two thirds of the time, with hardly any
# optimisation (`quick_compiles`). Jaxlib 0.11 no longer has the flag, and XLA
# ends the process at a flag that it does not know.
if tuple(map(int, importlib.metadata.version('jaxlib').split('.')[:2])) < (
  0,
  11,
):
  os.environ['XLA_FLAGS'] = ' '.join(
    (os.environ['XLA_FLAGS'], '--xla_cpu_use_fusion_emitters=false')
  )

import hypothesis
import jax
import jaxtyping
import numpy as np
import pytest

# What takes a JAX array takes NumPy's too, as JAX's own functions do.
jaxtyping.Array = jax.Array | np.ndarray
# A command that `runpy` runs here would be kept with the hook's checks in it,
# and no other process could run it from this folder any more.
sys.dont_write_bytecode = True
# What JAX traces is many small objects: to look through them less often saves a
# tenth of the time.
gc.set_threshold(200_000, 50, 100)
# Before anything imports the package, or its modules go unchecked.
jaxtyping.install_import_hook(
  ['synermedgen_jax', 'projects'], 'type_checks.check'
)


@pytest.fixture(scope='session')
def store_path(tmp_path_factory):
  """A finished slice store whose pixels identify their slice."""
  from store_fakes import write_store

  path = tmp_path_factory.mktemp('slices') / 'store'
  write_store(path)
  return path


@pytest.fixture(scope='session')
def shared_path(tmp_path_factory, request):
  """A folder that pytest's processes share."""
  base = tmp_path_factory.getbasetemp()
  in_worker = hasattr(request.config, 'workerinput')
  return base.parent if in_worker else base


@pytest.fixture(scope='module')
def quick_compiles(shared_path):
  """Compiles with few optimisations, and caches programs."""
  import nano

  with nano.quick_compiles(shared_path / 'programs'):
    yield


@pytest.fixture(scope='session')
def nano_runs(shared_path):
  """`store` and the stages `autoencoder`, `stage1`, `stage2`, `joint`."""
  import nano

  with nano.quick_compiles(shared_path / 'programs'):
    return nano.trained_stages(shared_path / 'nano')


def pytest_collection_modifyitems(items):
  """Runs tests that need `nano_runs` first.

  They take minutes, in which another process of pytest would wait for them if
  its tests asked for them too; it begins in the middle of the list.
  """
  items.sort(key=lambda item: 'nano_runs' not in item.fixturenames)


@pytest.fixture
def nano_preset(monkeypatch):
  """The model `nano`, by name."""
  import nano

  from synermedgen_jax.models import presets

  monkeypatch.setitem(presets.PRESETS, 'nano', lambda: nano.MODEL)


# How long a case takes says more of the machine's load than of the code.
hypothesis.settings.register_profile('no_deadline', deadline=None)
hypothesis.settings.load_profile('no_deadline')
# About an hour of tests/slices/test_fuzzing.py on two cores.
hypothesis.settings.register_profile(
  'fuzz',
  deadline=None,
  max_examples=20_000,
  suppress_health_check=list(hypothesis.HealthCheck),
)
