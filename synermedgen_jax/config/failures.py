"""One line for every error that is no bug: of the user or of the machine."""

from __future__ import annotations

import os
import re
import sys
from concurrent.futures.process import BrokenProcessPool

from absl import flags

from synermedgen_jax.core.errors import UserError

_SURROGATES = 'surrogates not allowed'  # how Python reads bytes of no UTF-8
_MEMORY = ('RESOURCE_EXHAUSTED', 'Out of memory', 'out of memory')
# TensorStore's errors of the machine: a status, the operation, the file and the
# reason. Others, such as INVALID_ARGUMENT, are bugs.
_STORAGE = re.compile(
  r'(?:ABORTED|DATA_LOSS|DEADLINE_EXCEEDED|PERMISSION_DENIED|'
  r'RESOURCE_EXHAUSTED|UNAUTHENTICATED|UNAVAILABLE): (?:Error )?'
  r'(.*?)(?: \[\w+=.*)?$',
  re.DOTALL,
)
# Flags that reduce memory, in the order in which to try them.
_SMALLER = ('batch_size', 'workers', 'canvas')


def describe(error: BaseException) -> str | None:
  """One line that says what went wrong and what to do; None = a bug."""
  if isinstance(error, UserError):
    return str(error)
  if isinstance(error, OSError):
    return str(error)
  if isinstance(error, ValueError) and (storage := _STORAGE.match(str(error))):
    return f'{storage[1]}.'.replace('\0', '/').replace('\n', ' ')
  if isinstance(error, UnicodeEncodeError) and error.reason == _SURROGATES:
    return f'{error.object[:200]!r}: is not UTF-8; rename the file or folder.'
  if isinstance(error, BrokenProcessPool):
    return (
      'a worker process ended unexpectedly, most likely because memory ran '
      f'out; {_remedy()}.'
    )
  if isinstance(error, MemoryError) or _is_out_of_device_memory(error):
    detail = f' ({str(error).splitlines()[0]})' if str(error) else ''
    return f'out of memory{detail}; {_remedy()}.'
  return _missing_platform()


def _is_out_of_device_memory(error: BaseException) -> bool:
  jax = sys.modules.get('jax')
  return (
    jax is not None
    and isinstance(error, jax.errors.JaxRuntimeError)
    and any(sign in str(error) for sign in _MEMORY)
  )


def _remedy() -> str:
  """How to need less memory, with the flags of the command."""
  if 'config' in flags.FLAGS and flags.FLAGS['config'].present:
    return (
      'reduce --config.rows or --config.capacity, or use --config.compute.'
      'remat=full'
    )
  names = [f'--{name}' for name in _SMALLER if name in flags.FLAGS]
  if not names:
    return 'use a machine with more memory'
  return f'reduce {" or ".join(names)}'


def _missing_platform() -> str | None:
  """Whether JAX_PLATFORMS names a platform that JAX cannot use."""
  wanted, jax = os.environ.get('JAX_PLATFORMS'), sys.modules.get('jax')
  if not wanted or jax is None:
    return None
  try:
    jax.devices()
  except (RuntimeError, AssertionError):  # without a plugin, without a message
    return (
      f'JAX_PLATFORMS={wanted}: has no device on this machine, or its plugin '
      'is not installed; unset JAX_PLATFORMS, or use JAX_PLATFORMS=cpu.'
    )
  return None
