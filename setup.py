"""What pyproject.toml cannot say: where packages lie, and what extras need.

`configs/` is installed as `synermedgen_jax.configs`, `weights/demo` as
`synermedgen_jax.demo`; `projects/` is not installed.
"""

from pathlib import Path

from setuptools import find_packages, setup

DEV = Path(__file__).with_name('requirements-dev.txt').read_text().splitlines()

setup(
  packages=[
    *find_packages(include=['synermedgen_jax', 'synermedgen_jax.*']),
    *(
      f'synermedgen_jax.{name}'
      for name in find_packages(include=['configs', 'configs.*'])
    ),
    'synermedgen_jax.demo',
  ],
  package_dir={
    'synermedgen_jax.configs': 'configs',
    'synermedgen_jax.demo': 'weights/demo',
  },
  extras_require={
    'tpu': ['jax[tpu]', 'gcsfs'],
    'gcs': ['gcsfs'],  # gs:// addresses
    'gpu': ['jax[cuda12]'],
    'app': ['starlette>=0.40', 'uvicorn>=0.30'],
    # Without comments and `-r requirements.txt`.
    'dev': [line for line in DEV if line and line[0] not in '#-'],
  },
)
