"""Writes held-out sources as files for other programs.

  python -m synermedgen_jax.export_tests --store=runs/demo/store \\
      --routes=brain_mr_to_ct --output=runs/export

Writes for every route and test subject the source as NIfTI and its slices as
PNG, with metadata.json (pictures and prompts) and index.jsonl (route, case,
slice, and name, window and unit of the expected output). No truths are written.
`score` reads the outputs of the other program. See docs/external.md.
"""

from absl import flags

from synermedgen_jax.config.command_line import (
  UsageError,
  define_modules_flag,
  local_path,
  run_command,
)
from synermedgen_jax.config.modules import import_modules
from synermedgen_jax.core.choices import SPLITS
from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.modalities import routes_named
from synermedgen_jax.tasks.prompts import PROMPTS

_STORE = flags.DEFINE_string(
  'store', None, 'Folder of the slice store.', short_name='i'
)
_OUTPUT = flags.DEFINE_string(
  'output', None, 'New folder for the files.', short_name='o'
)
_SPLIT = flags.DEFINE_enum('split', 'test', SPLITS, 'Split of the subjects.')
_ROUTES = flags.DEFINE_list(
  'routes', [], 'Names of the routes to export. Default: all.'
)
_SLICES = flags.DEFINE_integer(
  'slices',
  0,
  'Slices per case, evenly spaced; 0 = all usable ones. Volumes are whole.',
  lower_bound=0,
)
_PROMPTS = flags.DEFINE_enum(
  'prompts', 'paper', PROMPTS, 'Wordings of metadata.json.'
)
_MODULES = define_modules_flag()


def main() -> None:
  from synermedgen_jax.evaluation.exporting import export_tests
  from synermedgen_jax.evaluation.protocol import route_pairs
  from synermedgen_jax.slices.store import SliceStore

  import_modules(_MODULES.value)
  try:
    routes_named(_ROUTES.value)
  except UserError as error:
    raise UsageError(f'--routes: {error}') from None
  output = local_path('output', _OUTPUT.value)
  store = SliceStore.open(_STORE.value)
  pairs = list(
    route_pairs(
      store.split(_SPLIT.value), slices=_SLICES.value, routes=_ROUTES.value
    )
  )
  if not pairs:
    raise UsageError(
      f'{store.path}: no subject of split {_SPLIT.value!r} has a requested '
      'route; choose another --split or other --routes.'
    )
  done = export_tests(store, pairs, output, PROMPTS[_PROMPTS.value])
  print(
    f'{done.slices} slices of {done.volumes} volumes, {len(done.routes)} '
    f'routes.\n{output}'
  )


if __name__ == '__main__':
  run_command(main, required=['store', 'output'])
