"""Writes the model of a run as a folder of weights that can be passed on.

  python -m synermedgen_jax.ship_weights --workdir=runs/base/base \\
      --output=weights/small

The folder holds the parameters (safetensors, 16 bits) and the model's shape.
It can stand wherever a run is started from (--config.init_from).
"""

import sys
from pathlib import Path

from absl import app, flags, logging

from synermedgen_jax.checkpoint import model as saved_model
from synermedgen_jax.checkpoint import weights_folder

_WORKDIR = flags.DEFINE_string('workdir', None, 'A run.', required=True)
_OUTPUT = flags.DEFINE_string('output', None, 'A folder.', required=True)


def main(argv: list[str]) -> None:
  del argv
  if not flags.FLAGS['verbosity'].present:
    logging.set_verbosity(logging.WARNING)  # Orbax tells every file it reads
  output = Path(_OUTPUT.value)
  try:
    model, params = saved_model.load_model(Path(_WORKDIR.value) / 'checkpoints')
    weights_folder.save_weights(output, model, params)
  except ValueError as error:
    sys.exit(f'Error: {error}')
  size = (output / weights_folder.TENSORS).stat().st_size
  print(f'{output}: {size / 1e6:.1f} MB')


if __name__ == '__main__':
  app.run(main)
