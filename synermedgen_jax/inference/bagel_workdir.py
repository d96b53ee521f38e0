"""Converts BAGEL's files to a workdir, and a workdir to BAGEL's files."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from synermedgen_jax.checkpoint import streaming
from synermedgen_jax.config.defaults import BAGEL_SAMPLING
from synermedgen_jax.config.tokenizer import FOLDER, tokenizer_of_run
from synermedgen_jax.core import files
from synermedgen_jax.core.lazy_array import LazyArray
from synermedgen_jax.core.neighbours import did_you_mean
from synermedgen_jax.core.progress import Bar
from synermedgen_jax.inference.workdir import WorkdirError
from synermedgen_jax.input import tokenizer, vocab_files
from synermedgen_jax.input.tokenizer import PROJECT
from synermedgen_jax.interop import bagel_configs, bagel_weights, tensor_files
from synermedgen_jax.interop.layouts import BAGEL, UNIMEDVL, Layout
from synermedgen_jax.models.bagel_config import BagelConfig


@dataclasses.dataclass(frozen=True)
class _Editing:
  """How a program edits an image by default.

  Attributes:
    vit_side: side of the ViT's input, in pixels.
    vae_side: side of the VAE's input, in pixels.
    sampling: `config.sampling`.
  """

  vit_side: int
  vae_side: int
  sampling: Mapping[str, Any]


_EDITING = {
  BAGEL.name: _Editing(518, 512, BAGEL_SAMPLING),
  # UniMedVL keeps the size of its input, and enlarges a ViT image to 387, which
  # it rounds to 392; 256 is the canvas that `prepare` writes by default.
  UNIMEDVL.name: _Editing(
    392,
    256,
    {
      'points': 50,
      'shift': 3.0,
      'guidance': {
        'text': 4.0,
        'image': 2.0,
        'interval': (0.0, 1.0),
        'renorm': 'text_channel',
        'renorm_min': 0.0,
      },
      'describe_tokens': 800,
    },
  ),
}


def import_bagel(
  source: Path,
  output: Path,
  dtype: np.dtype,
  layout: Layout = BAGEL,
) -> dict[str, LazyArray]:
  """Writes BAGEL's files as a workdir for training or inference.

  Args:
    source: folder of BAGEL's files.
    output: the new workdir. It gets `checkpoints/0`, `config.json` and, if the
      source has a tokenizer, `tokenizer/`. It is removed after an error.
    dtype: dtype of the weights and of the computation.
    layout: how the files are arranged; also selects the settings of sampling
      in the workdir's config.

  Returns:
    The parameters by name.

  Raises:
    BagelError, TensorFileError: a file of the source is missing or invalid.
    WorkdirError: `output` is not empty.
  """
  model = bagel_configs.bagel_config(source, layout)
  matches = bagel_weights.match(source, model, layout)
  params = bagel_weights.parameters(matches, model, dtype)
  total = sum(array.nbytes for array in params.values())
  with _new_folder(output):
    if vocab_files.holds_tokenizer(source):
      vocab_files.copy(source, output / FOLDER)
    record = {
      'config': _run_config(model, dtype, _EDITING[layout.name]),
      'source': str(source),
      'versions': {},  # those of BAGEL's training are not known
    }
    files.write_json(output / 'config.json', record)
    # The checkpoint comes last: it marks the workdir as complete.
    with Bar('import', total, 'B', delay=0.5) as bar:
      streaming.save_model(output / 'checkpoints', model, params, bar.update)
  return params


def export_bagel(
  workdir: Path,
  output: Path,
  dtype: np.dtype | None = None,
) -> dict[str, LazyArray]:
  """Writes the newest checkpoint of a workdir as BAGEL's files.

  Args:
    workdir: workdir of a run or of `import_bagel`.
    output: the new folder. It is removed after an error.
    dtype: dtype of all weights; None = the dtypes of the checkpoint.

  Returns:
    The tensors by key.

  Raises:
    BagelError: the model has parts that BAGEL lacks.
    CheckpointError: `workdir` has no checkpoint.
    WorkdirError: `workdir` has no config.json, or `output` is not empty.
  """
  of_tokenizer = _tokenizer_files(workdir)
  model, params = streaming.open_model(workdir / 'checkpoints')
  configs = bagel_configs.config_files(model)
  weights = bagel_weights.source_tensors(model, params, dtype)
  tensors = {key: t for file in weights.values() for key, t in file.items()}
  total = sum(tensor.nbytes for tensor in tensors.values())
  with _new_folder(output):
    if of_tokenizer:
      vocab_files.copy(of_tokenizer, output)
    for name, options in configs.items():
      files.write_json(output / f'{name}.json', options)
    with Bar('export', total, 'B', delay=0.5) as bar:
      for name, file in weights.items():
        tensor_files.write_tensors(output / name, file, bar.update)
  return tensors


@contextlib.contextmanager
def _new_folder(path: Path) -> Iterator[None]:
  """Creates a folder and removes it if the body raises."""
  if path.exists() and (not path.is_dir() or any(path.iterdir())):
    raise WorkdirError(
      f'{path}: already exists; remove it, or name a new folder.'
    )
  path.mkdir(parents=True, exist_ok=True)
  try:
    yield
  except BaseException:
    shutil.rmtree(path, ignore_errors=True)
    raise


def _run_config(
  model: BagelConfig, dtype: np.dtype, editing: _Editing
) -> dict[str, Any]:
  """The part of a run's config that `evaluate` and `predict` read."""
  side = editing.vit_side // model.vit.patch
  patches = min(side, model.vit_table, model.vit.table)
  latents = min(editing.vae_side // model.latent_stride, model.latent_table)
  return {
    'stage': 'joint',  # BAGEL is trained for both parts
    'model': 'init_from',
    'init_from': '',
    'compute': {
      'dtype': dtype.name,
      'remat': 'full',
      'attention': '',
      'unroll': 1,
    },
    'modules': [],
    'store': '',
    'tokenizer': '',  # the files in tokenizer/
    'prompts': 'paper',
    'image': {
      'vit_size': [patches * model.vit.patch] * 2,
      'vae_size': [latents * model.latent_stride] * 2,
    },
    'neighbours': 3,
    'sampling': editing.sampling,
  }


def _tokenizer_files(workdir: Path) -> Path | None:
  """Folder or file of a run's tokenizer; None = the run has none."""
  if not (workdir / 'config.json').is_file():
    raise WorkdirError(
      f'{workdir}: has no config.json; name the workdir of a run.'
      f'{did_you_mean(workdir)}'
    )
  try:
    name = tokenizer_of_run(workdir)
  except ValueError as error:
    raise WorkdirError(str(error)) from None
  if name == PROJECT:
    return Path(tokenizer.__file__).with_name('tokenizer.json')
  return Path(name) if name else None
