"""Trains systems under equal budgets and ranks them.

  python -m synermedgen_jax.arena --store=runs/demo/store --run=runs/arena \\
      --systems=synermedgen:3,unet:3,pix2pix:3,cyclegan \\
      --budget=images:6000,operations:1.6e13

Prints what every system will cost, then trains and evaluates one after the
other. The same command resumes. A budget is a number of pairs of slices that a
system is trained to translate, or a number of operations of training. The pairs
of modalities of a system that is trained per pair share it, and so do the
stages of SynerMedGen that train synthesis; the table states the operations of
Stage I. Systems named as_... are variants of SynerMedGen by one setting
(docs/baselines.md).

Each budget has a folder, such as RUN/images-6000, with workdirs SEED/SYSTEM, as
`compare` reads them, and:

* arena.md, arena.json: the table of all systems, and one of all routes;
* arena.html: the same slices for all systems, one row per route.

SynerMedGen and its variants share their first stages, under all budgets, in
RUN/stages/SEED.
"""

import signal
import sys

from absl import flags

from synermedgen_jax.config.command_line import (
  UsageError,
  local_path,
  run_command,
)
from synermedgen_jax.core.choices import SPLITS

_STORE = flags.DEFINE_string('store', None, 'Folder of the slice store.')
_RUN = flags.DEFINE_string('run', None, 'Folder of the arena.')
_SYSTEMS = flags.DEFINE_list(
  'systems',
  ['synermedgen', 'unet', 'pix2pix', 'cyclegan'],
  'Systems to train, in this order. NAME:3 has three trainings, with the seeds '
  '0, 1 and 2.',
)
_BUDGETS = flags.DEFINE_list(
  'budget',
  ['images:24000'],
  'images:NUMBER, operations:NUMBER, or several of them.',
)
_SLICES = flags.DEFINE_integer(
  'slices', 6, 'Slices per case to evaluate; 0 = all usable.', lower_bound=0
)
_CONFIGS = flags.DEFINE_string(
  'configs', 'configs/small', 'Folder with a config for each system.'
)
_SPLIT = flags.DEFINE_enum('split', 'test', SPLITS, 'Split of the subjects.')
_ANNOUNCE = flags.DEFINE_bool('announce', False, 'Print the costs and stop.')
_RATE = 50e9  # operations per second that two CPU cores reach in training


def main() -> None:
  from synermedgen_jax.planning import arena, arena_run
  from synermedgen_jax.reporting.arena_files import write_tables
  from synermedgen_jax.reporting.arena_table import costs
  from synermedgen_jax.slices.store import SliceStore

  signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
  run = local_path('run', _RUN.value)
  setting = arena_run.Arena(
    SliceStore.open(_STORE.value),
    run / 'stages',
    _SYSTEMS.value,
    _CONFIGS.value,
    _SPLIT.value,
    _SLICES.value,
  )
  try:
    budgets = [arena.Budget.parse(text) for text in _BUDGETS.value]
  except ValueError as error:
    raise UsageError(f'--budget={error}') from None
  if not budgets:
    raise UsageError('--budget: is empty; name one, such as images:24000.')
  folders = {b: run / str(b).replace(':', '-') for b in budgets}
  candidates = {
    budget: list(arena_run.candidates(setting, folder, budget))
    for budget, folder in folders.items()
  }
  every = [c for group in candidates.values() for c in group]
  print(costs([(c.system, c.folder, c.trainings) for c in every], _RATE))
  if _ANNOUNCE.value:
    return
  arena_run.check(setting, every)
  for budget, group in candidates.items():
    for candidate in group:
      arena_run.train(setting, candidate)
    write_tables(setting, budget, folders[budget], group)


if __name__ == '__main__':
  run_command(main, required=['store', 'run'])
