"""Writes the model of a run as a weights folder that can synthesise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from synermedgen_jax.checkpoint import model as saved_model
from synermedgen_jax.checkpoint import weights_folder
from synermedgen_jax.config.tokenizer import FOLDER, tokenizer_of_run
from synermedgen_jax.core import files
from synermedgen_jax.inference.trained_system import load_system
from synermedgen_jax.inference.workdir import RunRecord, WorkdirError
from synermedgen_jax.input import vocab_files
from synermedgen_jax.input.tokenizer import PROJECT
from synermedgen_jax.interop.hub import is_address


def ship(workdir: Path, folder: Path, *, dtype: str = 'float16') -> None:
  """Writes the newest checkpoint of a run, its record and its tokenizer.

  The record leaves out the names of local files and folders, and gets the key
  `step`, the step of the checkpoint.

  Args:
    workdir: workdir of `main` or `import_bagel`.
    folder: an empty folder.
    dtype: dtype of the parameters in the file.

  Raises:
    WorkdirError: the workdir is not one of such a run, or has no tokenizer.
    CheckpointError: it has no complete checkpoint.
    UserError: a parameter does not fit in `dtype`.
  """
  if system := load_system(workdir):
    raise WorkdirError(
      f'{workdir}: is a run of {system.title}, whose weights have no folder; '
      'name a run of SynerMedGen.'
    )
  RunRecord.load(workdir)  # refuses what is no run
  checkpoints = workdir / 'checkpoints'
  step = saved_model.newest_step(checkpoints)
  model, params = saved_model.load_model(checkpoints, which=str(step))
  tokenizer = tokenizer_of_run(workdir)
  if not tokenizer:
    raise WorkdirError(f'{workdir}: has no tokenizer.')
  if tokenizer != PROJECT:
    vocab_files.copy(tokenizer, folder / FOLDER)
  record = json.loads((workdir / 'config.json').read_text('utf-8'))
  files.write_json(folder / weights_folder.RECORD, _public(record, step))
  weights_folder.save_weights(folder, model, params, dtype=dtype)
  weights_folder.write_checksums(folder)


def _public(record: dict[str, Any], step: int) -> dict[str, Any]:
  """The record without names of local files, which may name people."""
  config = dict(record['config'])
  for key in ('store', 'init_from', 'tokenizer'):
    value = config.get(key, '')
    if value != PROJECT and not is_address(value):
      config[key] = ''
  if 'bagel_files' in config:
    config['bagel_files'] = dict.fromkeys(config['bagel_files'], '')
  record = {name: x for name, x in record.items() if name != 'source'}
  return {**record, 'config': config, 'step': step}
