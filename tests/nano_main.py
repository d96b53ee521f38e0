"""The train command with the model `nano`, as a process of its own.

python nano_main.py [MAIN'S ARGUMENTS]; NANO_DEVICES sets how many CPU devices
it has.
"""

import os
import runpy

import jax
import nano

from synermedgen_jax.models import presets

if __name__ == '__main__':
  jax.config.update('jax_num_cpu_devices', int(os.environ['NANO_DEVICES']))
  jax.config.update('jax_disable_most_optimizations', True)
  presets.PRESETS['nano'] = lambda: nano.MODEL
  runpy.run_module('synermedgen_jax.main', run_name='__main__', alter_sys=True)
