"""Writes the trained base as a weights folder, with medical words.

  python -m projects.small_base.ship --workdir=runs/base/pictures_more \\
      --output=runs/base/weights

Names of modalities and regions become copies of words that the base knows
(`new_words.py`). The file has 16-bit floats.
"""

from pathlib import Path

from absl import flags

from projects.small_base.new_words import WORDS, start_as_known
from synermedgen_jax.checkpoint.model import load_model
from synermedgen_jax.checkpoint.weights_folder import save_weights
from synermedgen_jax.config.command_line import run_command
from synermedgen_jax.input.tokenizer import project_tokenizer

_WORKDIR = flags.DEFINE_string('workdir', None, 'Workdir of the last stage.')
_OUTPUT = flags.DEFINE_string('output', None, 'Folder to write.')


def main() -> None:
  output = Path(_OUTPUT.value)
  model, params = load_model(Path(_WORKDIR.value) / 'checkpoints')
  params = start_as_known(params, project_tokenizer(), WORDS)
  save_weights(output, model, params)
  print(f'{output}: written; {len(WORDS)} words are copies of known ones.')


if __name__ == '__main__':
  run_command(main, required=['workdir', 'output'])
