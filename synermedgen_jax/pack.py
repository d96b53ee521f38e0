"""Writes a container of a run for SynthRAD on grand-challenge.org.

  python -m synermedgen_jax.pack --workdir=RUN/stage2 --source=mr --target=ct \\
      --region=brain --output=CONTAINER

The folder is the build context of an image that reads
/input/images/{mri,cbct,body}/*.mha and writes
/output/images/synthetic-ct/*.mha (synermedgen_jax/container.py). It has the
library, the requirements in the versions of this machine, and the weights.
"""

from absl import flags

from synermedgen_jax.config.command_line import local_path, run_command

_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Workdir of a run that synthesises the route.'
)
_SOURCE = flags.DEFINE_string('source', None, 'Source modality: mr or cbct.')
_TARGET = flags.DEFINE_string('target', None, 'Target modality: ct.')
_REGION = flags.DEFINE_string(
  'region', None, 'Body region of the route, such as brain or pelvis.'
)
_OUTPUT = flags.DEFINE_string('output', None, 'New folder to write.')


def main() -> None:
  from synermedgen_jax.core.modalities import Modality, Region, find_route
  from synermedgen_jax.inference.build_context import write_context

  route = find_route(
    Region.parse(_REGION.value),
    [Modality.parse(_SOURCE.value)],
    Modality.parse(_TARGET.value),
  )
  output = local_path('output', _OUTPUT.value)
  write_context(local_path('workdir', _WORKDIR.value), output, route)
  print(f'docker build --platform=linux/amd64 --tag={route.name} {output}')


if __name__ == '__main__':
  run_command(
    main, required=['workdir', 'source', 'target', 'region', 'output']
  )
