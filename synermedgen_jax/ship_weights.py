"""Exports the model of a run as a weights folder.

  python -m synermedgen_jax.ship_weights --workdir=runs/base/base \\
      --output=weights/small

The folder has the parameters (safetensors, 16 bits) and the shape of the model.
Runs can start from it (--config.init_from).
"""

from absl import flags

from synermedgen_jax.checkpoint import model as saved_model
from synermedgen_jax.checkpoint import weights_folder
from synermedgen_jax.config.command_line import local_path, run_command

_WORKDIR = flags.DEFINE_string('workdir', None, 'Workdir of the run.')
_OUTPUT = flags.DEFINE_string('output', None, 'New folder for the weights.')


def main() -> None:
  output = local_path('output', _OUTPUT.value)
  workdir = local_path('workdir', _WORKDIR.value)
  model, params = saved_model.load_model(workdir / 'checkpoints')
  weights_folder.save_weights(output, model, params)
  size = (output / weights_folder.TENSORS).stat().st_size
  print(f'{output}: {size / 1e6:.1f} MB')


if __name__ == '__main__':
  run_command(main, required=['workdir', 'output'])
