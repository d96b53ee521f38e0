"""The name of `predict` in earlier versions."""

import runpy

if __name__ == '__main__':
  runpy.run_module(
    'synermedgen_jax.predict', run_name='__main__', alter_sys=True
  )
