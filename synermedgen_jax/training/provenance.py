"""Records the origin of a run: config, slices, tokenizer, versions, commit."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import jax
from etils.epath import Path

from synermedgen_jax.config.model import image_size
from synermedgen_jax.config.tokenizer import FOLDER
from synermedgen_jax.core.commit import commit
from synermedgen_jax.input import vocab_files
from synermedgen_jax.input.tokenizer import PROJECT
from synermedgen_jax.interop.hub import is_address
from synermedgen_jax.slices.framing import SliceSpec
from synermedgen_jax.slices.store import SliceStore
from synermedgen_jax.tasks.pairs import Pool
from synermedgen_jax.training.metrics_log import (
  StepLog,
  write_atomically,
  writing,
)

PACKAGES = (
  'jax',
  'jaxlib',
  'flax',
  'optax',
  'orbax-checkpoint',
  'grain',
  'tensorstore',
  'numpy',
)


def keep(
  config: Mapping[str, Any],
  store: SliceStore | None,
  workdir: Path,
  start: int,
) -> None:
  """Writes `config.json`, the tokenizer's files, and a row of `starts.jsonl`.

  `starts.jsonl` has a row per start and resumption. A tokenizer's files are
  copied into `tokenizer/`, so that evaluation and later stages need only the
  workdir.

  Args:
    config: resolved config as plain values.
    store: slice store of the training data, if any.
    workdir: folder of the run.
    start: step from which the run resumes, 0 for a new run.
  """
  if jax.process_index() > 0:
    return
  name = config.get('tokenizer', PROJECT)  # systems of the arena have none
  if name != PROJECT and not vocab_files.holds_tokenizer(workdir / FOLDER):
    with writing(workdir / FOLDER):
      vocab_files.copy(name, workdir / FOLDER)
  config = {**config, 'init_from': _init_from(config, workdir, start)}
  versions = {name: metadata.version(name) for name in PACKAGES}
  # Slices are fitted from the store's canvas to the model's images.
  slices = store.slices if store else SliceSpec(image_size(config))
  record = {
    'config': config,
    'store_fingerprint': store.fingerprint if store else None,
    **slices.to_json(),
    'routes': trained_routes(config, store),
    'versions': {'python': platform.python_version(), **versions},
    'commit': commit(),
  }
  write_atomically(workdir / 'config.json', json.dumps(record, indent=2) + '\n')
  if start < config['steps']:
    code = {'commit': record['commit'], 'versions': record['versions']}
    devices = {'processes': jax.process_count(), 'devices': jax.device_count()}
    StepLog(workdir / 'starts.jsonl', start).write(start, code | devices)


def _init_from(config: Mapping[str, Any], workdir: Path, start: int) -> str:
  """`config.init_from`, or that of the record of a run that resumes.

  A run that resumes reads no weights of the hub, and a branch may have moved.
  """
  path = workdir / 'config.json'
  if start and is_address(config['init_from']) and path.is_file():
    return json.loads(path.read_text('utf-8'))['config']['init_from']
  return config['init_from']


def trained_routes(
  config: Mapping[str, Any], store: SliceStore | None
) -> list[str] | None:
  """Names of the routes whose targets the run learns to synthesise, sorted.

  None = not known: without a store or with BAGEL's files of edits, whose
  modalities are not declared, or if the run does not train synthesis.
  """
  tasks = config.get('tasks', {'synthesis': 1.0})
  if store is None or not tasks.get('synthesis') or tasks.get('editing'):
    return None
  pool = Pool(
    store.split('train'),
    routes=config['routes'],
    max_sources=config.get('max_sources', 1),
  )
  return sorted(route.name for route in pool.drawn_routes())
