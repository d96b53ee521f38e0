"""A workdir from BAGEL's files, and BAGEL's files from a workdir."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from synermedgen_jax.checkpoint import streaming
from synermedgen_jax.core.lazy_array import LazyArray
from synermedgen_jax.inference.sampling import Guidance, SamplingConfig
from synermedgen_jax.inference.workdir import WorkdirError
from synermedgen_jax.input import tokenizer
from synermedgen_jax.interop import bagel_configs, bagel_weights, tensor_files
from synermedgen_jax.models.bagel import BagelConfig

# BAGEL's own for editing an image.
_VIT_SIDE, _VAE_SIDE = 518, 512
_SAMPLING = SamplingConfig(
  points=50,
  shift=3.0,
  guidance=Guidance(text=4.0, image=2.0, renorm='text_channel'),
)
# Called with bytes just written, and bytes in all.
Progress = Callable[[int, int], object]


def import_bagel(
  source: Path,
  output: Path,
  dtype: np.dtype,
  progress: Progress = lambda done, total: None,
) -> dict[str, LazyArray]:
  """Makes BAGEL's files a workdir that a run, or inference, starts from.

  Args:
    source: BAGEL's files.
    output: the new workdir: checkpoint 0, config and tokenizer. It is whole or
      it is not there.
    dtype: of the weights and of the model's arithmetic.
    progress: told of every write.

  Returns:
    The parameters by name.

  Raises:
    BagelError, TensorFileError: naming what is wrong with the files.
    WorkdirError: there is something at `output`.
  """
  model = bagel_configs.bagel_config(source, dtype=dtype.name)
  matches = bagel_weights.match(source, model)
  params = bagel_weights.parameters(matches, model, dtype)
  total = sum(array.nbytes for array in params.values())
  with _new_folder(output):
    bagel_configs.copy_tokenizer(source, output)
    record = {'config': _run_config(model, output), 'source': str(source)}
    _write_json(output / 'config.json', record)
    # The checkpoint last: with it the workdir counts as whole.
    streaming.save_model(
      output / 'checkpoints', model, params, lambda n: progress(n, total)
    )
  return params


def export_bagel(
  workdir: Path,
  output: Path,
  dtype: np.dtype | None = None,
  progress: Progress = lambda done, total: None,
) -> dict[str, LazyArray]:
  """Writes the newest checkpoint of a workdir as BAGEL's files.

  Args:
    workdir: a run's, or what `import_bagel` made.
    output: the new folder. It is whole or it is not there.
    dtype: of all weights; by default each as the checkpoint has it.
    progress: told of every write.

  Returns:
    The tensors by key.

  Raises:
    BagelError: naming what the model has and BAGEL has not.
    CheckpointError: `workdir` holds no checkpoint.
    WorkdirError: it is no workdir, or there is something at `output`.
  """
  folder = _tokenizer_folder(workdir)
  model, params = streaming.open_model(workdir / 'checkpoints')
  configs = bagel_configs.config_files(model)
  files = bagel_weights.source_tensors(model, params, dtype)
  tensors = {key: t for file in files.values() for key, t in file.items()}
  total = sum(tensor.nbytes for tensor in tensors.values())
  with _new_folder(output):
    bagel_configs.copy_tokenizer(folder, output)
    for name, options in configs.items():
      _write_json(output / f'{name}.json', options)
    for name, file in files.items():
      tensor_files.write_tensors(
        output / name, file, lambda n: progress(n, total)
      )
  return tensors


@contextlib.contextmanager
def _new_folder(path: Path) -> Iterator[None]:
  """Makes a folder; takes it away again where filling it fails."""
  if path.exists() and (not path.is_dir() or any(path.iterdir())):
    raise WorkdirError(
      f'{path}: is there already; remove it, or name a new folder.'
    )
  path.mkdir(parents=True, exist_ok=True)
  try:
    yield
  except BaseException:
    shutil.rmtree(path, ignore_errors=True)
    raise


def _write_json(path: Path, value: Any) -> None:
  path.write_text(json.dumps(value, indent=2) + '\n')


def _run_config(model: BagelConfig, output: Path) -> dict[str, Any]:
  """What `evaluate` and `translate` read of a run's config."""
  patches = min(_VIT_SIDE // model.vit.patch, model.vit_table, model.vit.table)
  latents = min(_VAE_SIDE // model.latent_stride, model.latent_table)
  return {
    'stage': 'joint',  # BAGEL answers and synthesises
    'model': 'init_from',
    'store': '',
    'tokenizer': str(output.absolute()),
    'image': {
      'vit_side': patches * model.vit.patch,
      'vae_side': latents * model.latent_stride,
    },
    'neighbours': 3,
    'prompts': 'paper',
    'sampling': dataclasses.asdict(_SAMPLING),
  }


def _tokenizer_folder(workdir: Path) -> Path:
  """Where the tokenizer is that the run's config names."""
  path = workdir / 'config.json'
  try:
    name = json.loads(path.read_text())['config']['tokenizer']
  except FileNotFoundError:
    raise WorkdirError(f'{workdir}: holds no config.json of a run.') from None
  except (ValueError, KeyError, TypeError):
    raise WorkdirError(f'{path}: is not the config of a run.') from None
  if name == 'project':
    return Path(tokenizer.__file__).parent
  return Path(name) if Path(name).is_dir() else Path(name).parent
