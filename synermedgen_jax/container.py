"""Synthesises the cases of /input in a container of `pack`.

  python -m synermedgen_jax.container --context=CONTAINER --input=CASES \\
      --output=RESULTS

Reads INPUT/images/{mri,cbct,body}/*.mha and writes
OUTPUT/images/synthetic-ct/*.mha with one line per case
(synermedgen_jax/inference/challenge.py). The model is loaded once.
"""

from absl import flags

from synermedgen_jax.config.command_line import local_path, run_command

_CONTEXT = flags.DEFINE_string(
  'context', '.', 'Folder of `pack`, with weights and container.json.'
)
_INPUT = flags.DEFINE_string('input', '/input', 'Folder of the cases.')
_OUTPUT = flags.DEFINE_string('output', '/output', 'Folder of the results.')


def main() -> None:
  from synermedgen_jax.inference.build_context import WEIGHTS, read_route
  from synermedgen_jax.inference.challenge import synthesise_cases
  from synermedgen_jax.inference.workdir import Trained

  context = local_path('context', _CONTEXT.value)
  route = read_route(context)
  synthesise_cases(
    Trained.load(context / WEIGHTS),
    route,
    local_path('input', _INPUT.value),
    local_path('output', _OUTPUT.value),
  )


if __name__ == '__main__':
  run_command(main)
