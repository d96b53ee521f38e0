"""Measures the memory in which `predict` synthesises volumes of any length.

  python -m benchmarks.volume_memory

Writes a run with random weights, and a phantom's MR with `--canvas` pixels per
side for each number of slices. Translates every volume to CT in a process of
its own, in slabs of `--slab` slices, and the shortest and the longest one slice
by slice too. Prints a table:

* peak: largest resident memory of the process, in MiB;
* more: the peak minus that of the shortest volume with this slab, in MiB;
* volumes: source and target as float32, in MiB;
* copies: `more` divided by the same difference of `volumes`. What does not
  depend on the number of slices cancels out: interpreter, program, activations;
* seconds a slice: elapsed time of the process, start and compilation included,
  divided by the number of slices; then the same of its CPU time.

The model has a shape of the library with BAGEL's strides, 8 pixels a latent and
16 a token along each axis, and position tables as large as the canvas.
"""

import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import flax.linen as nn
import jax
import nibabel as nib
import numpy as np
from absl import app, flags, logging
from etils import epath
from scipy import ndimage

from benchmarks import processes, shapes
from benchmarks.tables import table
from synermedgen_jax.checkpoint import streaming
from synermedgen_jax.core.lazy_array import LazyArray
from synermedgen_jax.core.modalities import Modality
from synermedgen_jax.core.trees import flatten
from synermedgen_jax.models.bagel import init_params
from synermedgen_jax.models.bagel_config import BagelConfig
from synermedgen_jax.phantoms.cohorts import render_phantom
from synermedgen_jax.training import provenance

_MODEL = flags.DEFINE_string(
  'model', 'small', 'A preset, or medium; its ViT patches divide the canvas.'
)
_DETAIL = flags.DEFINE_integer(
  'detail', 16, 'Channels of the detail path; 0 = none.'
)
_CANVAS = flags.DEFINE_integer(
  'canvas', 256, 'Pixels per side of a slice, of the volume and of the model.'
)
_SLICES = flags.DEFINE_list(
  'slices', ['50', '100', '200'], 'Numbers of slices, ascending.'
)
_SLAB = flags.DEFINE_integer('slab', 3, 'Slices of a slab.')
_BATCH = flags.DEFINE_integer('batch_size', 16, 'Slices per batch.')
_LATENT = 8  # pixels, as BAGEL's
_MIB = 2**20
_HEAD = (
  'slices',
  'slab',
  'peak, MiB',
  'more, MiB',
  'volumes, MiB',
  'copies',
  'seconds a slice',
  'CPU',
)


def _shape() -> BagelConfig:
  """The model's shape, for images of the canvas."""
  shape = shapes.model_shape(_MODEL.value)
  coder, patches = shape.autoencoder, _CANVAS.value // shape.vit.patch
  fold = coder.space_to_depth * _LATENT // coder.downsample
  return dataclasses.replace(
    shape,
    vit=dataclasses.replace(shape.vit, table=patches),
    vit_table=patches,
    autoencoder=dataclasses.replace(coder, space_to_depth=fold),
    latent_table=_CANVAS.value // (_LATENT * shape.latent_patch),
    detail=_DETAIL.value,
  )


def _write_run(workdir: Path) -> None:
  """A run of Stage II that was not trained: its weights are random."""
  shape, size = _shape(), (_CANVAS.value, _CANVAS.value)
  config = shapes.stage_config('stage2', _MODEL.value)
  config.image = {'vit_size': size, 'vae_size': size}
  init = jax.jit(init_params, static_argnums=0)
  params = flatten(nn.unbox(init(shape, jax.random.key(0))))
  streaming.save_model(
    workdir / 'checkpoints',
    shape,
    {name: LazyArray.of(np.asarray(x)) for name, x in params.items()},
  )
  provenance.keep(config.to_dict(), None, epath.Path(workdir), config.steps)


def _write_volume(path: Path, slices: int) -> None:
  """A phantom's MR, resized to the canvas and to this number of slices."""
  phantom = render_phantom('brain', 0, 0)[Modality.MR]
  shape = (_CANVAS.value, _CANVAS.value, slices)
  zoom = np.divide(shape, phantom.shape)
  data = ndimage.zoom(np.asarray(phantom.dataobj, np.float32), zoom, order=1)
  nib.save(nib.Nifti1Image(data.astype(np.int16), np.eye(4)), path)


def _costs(folder: Path) -> Iterator[tuple[int, int, processes.Cost]]:
  """(slices, slab, cost) of every process."""
  _write_run(folder / 'run')
  counts = list(map(int, _SLICES.value))
  for slices in counts:
    _write_volume(folder / f'{slices}.nii.gz', slices)
  ends = [counts[0], counts[-1]]
  for slab, chosen in ((_SLAB.value, counts), (1, ends)):
    for slices in chosen:
      cost = processes.cost(
        'predict',
        f'--workdir={folder}/run',
        f'--input={folder}/{slices}.nii.gz',
        '--source=mr',
        '--target=ct',
        '--region=brain',
        f'--output={folder}/ct.nii.gz',
        f'--slab={slab}',
        f'--batch_size={_BATCH.value}',
      )
      yield slices, slab, cost


def _rows(costs: Sequence[tuple[int, int, processes.Cost]]) -> list[list[str]]:
  """The table's rows."""
  slice_mib = 2 * np.dtype(np.float32).itemsize * _CANVAS.value**2 / _MIB
  shortest, rows = {}, []
  for slices, slab, cost in costs:
    least, peak = shortest.setdefault(slab, (slices, cost.peak))
    more = (cost.peak - peak) / _MIB
    longer = (slices - least) * slice_mib
    rows.append(
      [
        str(slices),
        str(slab),
        f'{cost.peak / _MIB:,.0f}',
        f'{more:,.0f}',
        f'{slices * slice_mib:,.1f}',
        f'{more / longer:.1f}' if longer else '',
        f'{cost.seconds / slices:.2f}',
        f'{cost.cpu_seconds / slices:.2f}',
      ]
    )
  return rows


def main(_) -> None:
  logging.set_verbosity(logging.WARNING)  # Orbax logs every file
  with tempfile.TemporaryDirectory() as folder:
    costs = list(_costs(Path(folder)))
  print(table(_HEAD, _rows(costs)))


if __name__ == '__main__':
  app.run(main)
