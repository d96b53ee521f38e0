"""The tokenizer that a config names, or that a run was trained with."""

from __future__ import annotations

import json

from etils.epath import Path, PathLike
from ml_collections import ConfigDict

from synermedgen_jax.checkpoint.weights_folder import local_folder
from synermedgen_jax.config.errors import ConfigError, key_errors
from synermedgen_jax.input import vocab_files
from synermedgen_jax.input.tokenizer import Tokenizer, load_tokenizer

FOLDER = 'tokenizer'  # of a workdir: copies of the tokenizer's files


def tokenizer_of_run(workdir: PathLike) -> str:
  """Returns the name of a run's tokenizer, as `load_tokenizer` takes it.

  Args:
    workdir: workdir of a run or of `import_bagel`, or a weights folder.

  Returns:
    `WORKDIR/tokenizer` where that holds files, else the name in `config.json`;
    '' where there is neither.

  Raises:
    ValueError: `config.json` is not that of a run.
  """
  workdir = Path(workdir)
  if vocab_files.holds_tokenizer(workdir / FOLDER):
    return str(workdir / FOLDER)
  path = workdir / 'config.json'
  if not path.is_file():
    return ''
  try:
    return json.loads(path.read_text('utf-8'))['config'].get('tokenizer', '')
  except (ValueError, KeyError, TypeError, AttributeError):
    raise ValueError(f'{path}: is not the config of a run.') from None


def choose_tokenizer(config: ConfigDict) -> tuple[str, Tokenizer]:
  """Reads `config.tokenizer`, or where that is empty, that of `init_from`.

  Returns:
    The tokenizer's name ('project', or where its files are) and the tokenizer.

  Raises:
    ConfigError: `init_from` cannot be downloaded, neither names a tokenizer, it
      cannot be read, or its ids differ from those that `init_from` was trained
      with.
  """
  start = config.init_from
  with key_errors('init_from'):
    trained = tokenizer_of_run(local_folder(start)) if start else ''
  name = config.tokenizer or trained
  if not name:
    where = f' and config.init_from {start} holds none' if start else ''
    raise ConfigError(
      f'config.tokenizer is empty{where}: name a folder with a '
      "tokenizer.json, or 'project' for the one that ships."
    )
  with key_errors('tokenizer'):
    tokenizer = load_tokenizer(name)
  if trained and trained != name:
    with key_errors('init_from'):
      other = load_tokenizer(trained)
    if tokenizer.fingerprint != other.fingerprint:
      raise ConfigError(
        f'config.tokenizer {name!r} has other ids than the tokenizer of '
        f'config.init_from {start}: leave config.tokenizer empty.'
      )
  return name, tokenizer
