"""What a run was: its config, how slices are made, and what code it was."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import subprocess
from importlib import metadata, resources

import jax
from etils.epath import Path
from ml_collections import ConfigDict

from synermedgen_jax.slices.store import SliceStore
from synermedgen_jax.slices.windows import FIXED_WINDOWS
from synermedgen_jax.training.metrics_log import StepLog, write_whole

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
  config: ConfigDict, store: SliceStore | None, workdir: Path, start: int
) -> None:
  """Writes `config.json`, and a row of `starts.jsonl`.

  There is a row for every time that the run began or went on.

  Args:
    config: resolved.
    store: what it is trained on, if it is one.
    workdir: of the run.
    start: the step from which it goes on.
  """
  if jax.process_index() > 0:
    return
  versions = {name: metadata.version(name) for name in PACKAGES}
  windows = store.windows if store else FIXED_WINDOWS
  record = {
    'config': config.to_dict(),
    'plane': store.plane if store else 'axial',
    'frame': store.frame if store else 'volume',
    'windows': {m: dataclasses.asdict(w) for m, w in sorted(windows.items())},
    'versions': {'python': platform.python_version(), **versions},
    'commit': commit(),
  }
  write_whole(workdir / 'config.json', json.dumps(record, indent=2) + '\n')
  if start < config.steps:
    code = {'commit': record['commit'], 'versions': record['versions']}
    devices = {'processes': jax.process_count(), 'devices': jax.device_count()}
    StepLog(workdir / 'starts.jsonl', start).write(start, code | devices)


def commit() -> str:
  """The commit of this code, '-dirty' behind it where it was changed; or ''."""

  def git(*words: str) -> str:
    return subprocess.run(
      ['git', *words],
      cwd=os.path.dirname(__file__),
      capture_output=True,
      text=True,
      check=True,
    ).stdout.strip()

  try:
    # Where it is installed, a repository around it is another one.
    git('ls-files', '--error-unmatch', os.path.basename(__file__))
    return git('describe', '--always', '--dirty', '--abbrev=40', '--match=')
  except (OSError, subprocess.CalledProcessError):
    # An archive that git made of the code has it in a file.
    told = resources.files('synermedgen_jax').joinpath('COMMIT').read_text()
    return '' if told.startswith('$') else told.strip()
