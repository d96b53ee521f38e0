"""Measures what a device can reach: copies per second, and matrix products.

python -m benchmarks.device_peak --output=peak.json
"""

import json

import jax
import jax.numpy as jnp
from absl import app, flags

from benchmarks import jax_device
from benchmarks.measuring import append_record

_DTYPE = flags.DEFINE_string('dtype', 'bfloat16', 'Dtype of the product.')
_OUTPUT = flags.DEFINE_string('output', '', 'File to append a record to.')


def copy_rate() -> float:
  """Bytes per second that a copy reads and writes."""
  size = 2**26 if jax.default_backend() == 'cpu' else 2**30
  x = jnp.zeros(size // 4, jnp.float32)
  copy = jax.jit(jnp.negative)  # XLA removes a plain copy
  times = jax_device.seconds(lambda: copy(x), repeats=10, warmups=2)
  return 2 * size / times.wall


def main(_) -> None:
  record = {
    'benchmark': 'peak',
    'dtype': _DTYPE.value,
    'copy_bytes_per_second': copy_rate(),
    'product_rate': jax_device.product_rate(_DTYPE.value),
    **jax_device.description(),
  }
  print(json.dumps(record))
  append_record(_OUTPUT.value, record)


if __name__ == '__main__':
  app.run(main)
