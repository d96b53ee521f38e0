"""Exports the model of a run as a weights folder, or uploads one.

  python -m synermedgen_jax.ship_weights --workdir=RUN/stage2 \\
      --output=WEIGHTS --license=cc-by-4.0
  python -m synermedgen_jax.ship_weights --output=WEIGHTS --push=OWNER/NAME

The folder has the parameters (safetensors, 16 bits), the shape of the model,
the record of the run without names of local files, its tokenizer, checksums and
a model card, README.md. Runs can start from it (--config.init_from), and
predict synthesises with it (--workdir).

--push uploads the folder in one commit to a private repository of the Hugging
Face hub, or to a public one with --public; hf://OWNER/NAME is its address then.
Without --workdir, --output is a folder that exists. The card has to state the
license of the weights, in its header.
"""

from absl import flags

from synermedgen_jax.config.command_line import (
  UsageError,
  local_path,
  run_command,
)

_WORKDIR = flags.DEFINE_string(
  'workdir',
  None,
  'Workdir of the run. Default: --output exists.',
  short_name='i',
)
_OUTPUT = flags.DEFINE_string(
  'output',
  None,
  'Weights folder: a new one with --workdir.',
  short_name='o',
)
_LICENSE = flags.DEFINE_string(
  'license',
  '',
  'License of the weights in the card: an identifier of the hub, such as '
  'apache-2.0, cc-by-4.0 or other. Default: not stated, which --push refuses.',
)
_PUSH = flags.DEFINE_string(
  'push',
  '',
  'Repository OWNER/NAME of the Hugging Face hub to upload the folder to; '
  'needs a token (HF_TOKEN or `hf auth login`). Default: no upload.',
)
_PUBLIC = flags.DEFINE_bool(
  'public', False, 'Create a public repository, or upload to one.'
)


def main() -> None:
  from synermedgen_jax.checkpoint.weights_folder import TENSORS
  from synermedgen_jax.interop import hub
  from synermedgen_jax.reporting import publishing

  output = local_path('output', _OUTPUT.value)
  if not (_WORKDIR.value or _PUSH.value):
    raise UsageError('--workdir: name a run to export, or a --push.')
  if _LICENSE.value and not _WORKDIR.value:
    raise UsageError('--license: has no effect without --workdir.')
  if _PUBLIC.value and not _PUSH.value:
    raise UsageError('--public: has no effect without --push.')
  if _PUSH.value:
    hub.Address.parse(f'{hub.SCHEME}{_PUSH.value}')
  if _WORKDIR.value:
    workdir = local_path('workdir', _WORKDIR.value)
    publishing.export(
      workdir, output, license=_LICENSE.value, repository=_PUSH.value
    )
    size = (output / TENSORS).stat().st_size
    print(f'{size / 1e6:.1f} MB\n{output}')
  if _PUSH.value:
    print(publishing.upload(output, _PUSH.value, public=_PUBLIC.value))


if __name__ == '__main__':
  run_command(main, required=['output'])
