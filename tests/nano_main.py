"""The train command with the model `nano`, in a process of its own.

python nano_main.py [ARGUMENTS OF main]

NANO_DEVICES sets how many CPU devices it has; where NANO_TRACE names a file,
every step adds a row of the examples that it was made with.
"""

import json
import os
import runpy

import jax
import nano
import numpy as np

from synermedgen_jax.models import presets
from synermedgen_jax.training.record import Record


def trace(path: str) -> None:
  add = Record.add

  def add_and_tell(self, step, sums, numbers):
    rows = [np.unique(row[row >= 0]).tolist() for row in numbers]
    with open(path, 'a') as file:
      file.write(json.dumps({'step': step, 'rows': rows}) + '\n')
    add(self, step, sums, numbers)

  Record.add = add_and_tell


if __name__ == '__main__':
  jax.config.update('jax_num_cpu_devices', int(os.environ['NANO_DEVICES']))
  jax.config.update('jax_disable_most_optimizations', True)
  presets.PRESETS['nano'] = lambda: nano.MODEL
  if os.environ.get('NANO_TRACE'):
    trace(os.environ['NANO_TRACE'])
  runpy.run_module('synermedgen_jax.main', run_name='__main__', alter_sys=True)
