"""A stage from its config: every part built and checked before compiling.

  run = build(config)
  loop.train(run, workdir)

`build` is the only reader of a training config. Everything below it takes
frozen dataclasses and arguments.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import jax
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from synermedgen_jax.baselines.registry import SYSTEMS
from synermedgen_jax.checkpoint import weights_folder
from synermedgen_jax.config.errors import ConfigError, key_errors, made_of
from synermedgen_jax.config.model import (
  compute_of,
  initial_params,
  model_shape,
)
from synermedgen_jax.config.modules import import_modules
from synermedgen_jax.config.tokenizer import choose_tokenizer
from synermedgen_jax.core.batch import (
  Capacity,
  ImageGeometry,
  PackedBatch,
  abstract_batch,
)
from synermedgen_jax.core.chips import chip_of
from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.sharding import (
  BATCH_AXES,
  batch_sharding,
  make_mesh,
)
from synermedgen_jax.input.augment import Augment
from synermedgen_jax.input.mixture import Dropout, Mixture
from synermedgen_jax.input.pipeline import train_dataset
from synermedgen_jax.input.streams import TrainData
from synermedgen_jax.input.tokenizer import PROJECT, Tokenizer, load_tokenizer
from synermedgen_jax.interop import bagel_formats
from synermedgen_jax.models import presets
from synermedgen_jax.models.bagel import Bagel
from synermedgen_jax.slices.store import SliceStore
from synermedgen_jax.tasks.prompts import PROMPTS
from synermedgen_jax.tasks.registry import task_names
from synermedgen_jax.training import flops, loop
from synermedgen_jax.training.build_system import build_system
from synermedgen_jax.training.calibration import calibrate_latents
from synermedgen_jax.training.config_checks import (
  check,
  check_best_is_measured,
  check_detached,
  check_start,
  check_store,
  local_streams,
)
from synermedgen_jax.training.objectives import ObjectiveConfig
from synermedgen_jax.training.settings import loop_config, optimiser
from synermedgen_jax.training.train_state import (
  TrainState,
  abstract_state,
  create_state,
)


def build(
  config: ConfigDict,
  *,
  devices: Sequence[jax.Device] | None = None,
  data: bool = True,
) -> loop.Run:
  """Builds a run, and refuses what cannot run before anything compiles.

  Args:
    config: config of a stage, such as `configs.stage1.get_config()`, or of a
      system of the arena; not changed.
    devices: devices of the mesh; None = all devices of this machine.
    data: open the store and read the first rows. False is for planning: it
      needs no store, no `init_from` and no tokenizer (the project's is used).

  Raises:
    ConfigError: one line naming the key that is wrong.
    StoreError, CheckpointError, FormatError: naming the file.
  """
  config = config.copy_and_resolve_references()
  with key_errors('modules'):
    import_modules(config.modules)
  with key_errors('init_from'):
    # The run's record keeps the commit.
    config.init_from = weights_folder.pinned(config.init_from)
  if config.stage in SYSTEMS:
    return build_system(config, devices)
  if data:
    check_start(config)
  shape = model_shape(config)
  config.tokenizer, tokenizer = _tokenizer(config, needed=data)
  with key_errors('mesh'):
    mesh = make_mesh(config.mesh, devices)
  _resolve(config, mesh)
  check(config, shape, tokenizer, mesh)
  model = Bagel(shape, compute_of(config))
  geometry = made_of(config, 'image', shape.image_geometry)
  capacity = made_of(config, 'capacity', Capacity)
  mixture = _mixture(config)
  dropout = made_of(config, 'dropout', Dropout)
  store, rows, val = None, None, []
  if data:
    store = _store(config)
    rows, val = _data(
      config, store, tokenizer, geometry, capacity, mixture, dropout, mesh
    )
  step = _step_config(config)
  scales, tx = optimiser(config, model)
  check_detached(step.objective, scales)
  state = abstract_state(model, scales, tx, mesh, ema=config.ema > 0)
  used = 0.0
  if data:
    first = next(iter(rows))
    _check_best(config, model, step, state, first)
    used = _step_utilisation(config.rows, model, tx, step, state, first, mesh)
  return loop.BagelRun(
    config=config.to_dict(),
    model=model,
    tokenizer=tokenizer,
    geometry=geometry,
    capacity=capacity,
    mixture=mixture,
    dropout=dropout,
    rows=config.rows,
    mesh=mesh,
    scales=scales,
    tx=tx,
    state=state,
    create=functools.partial(_first_state, config, model, scales, tx, mesh),
    complete=functools.partial(_complete, config.stage, model, rows, mesh),
    step=step,
    loop=loop_config(config, used),
    store=store,
    data=rows,
    val=val,
  )


def batch_shapes(run: loop.BagelRun) -> PackedBatch:
  """A batch of the run as shapes, split over its mesh."""
  rows = batch_sharding(run.mesh)
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=rows),
    abstract_batch(run.rows, run.capacity, run.geometry),
  )


def _tokenizer(config: ConfigDict, *, needed: bool) -> tuple[str, Tokenizer]:
  if not needed and not config.tokenizer and not config.init_from:
    return '', load_tokenizer(PROJECT)
  return choose_tokenizer(config)


def _resolve(config: ConfigDict, mesh: Mesh) -> None:
  """Replaces values that stand for a choice by device.

  Rows of -1 become one row per device of data and fsdp, streams of -1 one per
  row, and an empty `compute.remat` that of the preset.
  """
  if config.rows == -1:
    config.rows = 1
    for axis in BATCH_AXES:
      config.rows *= mesh.shape[axis]
  if config.streams == -1:
    config.streams = config.rows
  if not config.compute.remat:
    config.compute.remat = presets.remat(
      config.model, chip_of(mesh.devices.flat[0])
    )


def _store(config: ConfigDict) -> SliceStore | None:
  if not config.store:
    return None
  with key_errors('store'):
    store = SliceStore.open(config.store)
  check_store(config, store)
  return store


def _step_config(config: ConfigDict) -> loop.StepConfig:
  return loop.StepConfig(
    stage=config.stage,
    objective=made_of(config, 'objective', ObjectiveConfig),
    tasks=task_names(config.tasks),
    ema_decay=config.ema,
    seed=config.seed,
  )


def _mixture(config: ConfigDict) -> Mixture:
  """The tasks, wordings and routes of the training data, without files."""
  return Mixture(
    tasks=config.tasks.to_dict(),
    prompts=PROMPTS[config.prompts],
    neighbours=config.neighbours,
    slab=config.slab,
    subjects=config.subjects,
    routes=tuple(config.routes),
    max_sources=config.max_sources,
    route_weights=tuple(config.route_weights),
  )


def _data(
  config: ConfigDict,
  store: SliceStore | None,
  tokenizer: Tokenizer,
  geometry: ImageGeometry,
  capacity: Capacity,
  mixture: Mixture,
  dropout: Dropout,
  mesh: Mesh,
) -> tuple[TrainData, list[PackedBatch]]:
  """The training data, and the batches of the validation."""
  files, names = config.bagel_files.to_dict(), task_names(mixture.tasks)
  local = local_streams(config, mesh)

  def dataset(split: str, seed: int, mixture: Mixture, **changes) -> TrainData:
    return train_dataset(
      store,
      split,
      tokenizer,
      geometry,
      capacity,
      dataclasses.replace(
        mixture,
        sources=bagel_formats.sources(files, split),
        files={k: v for k, v in files.items() if v and not k.startswith('val')},
        contents=bagel_formats.contents(files, split, names),
      ),
      rows=config.rows,
      seed=seed,
      **changes,
      packing_bins=config.packing_bins,
      streams=config.streams,
      local_streams=local,
      threads=config.reader_threads,
    )

  val = []
  try:
    data = dataset(
      'train',
      config.seed,
      mixture,
      dropout=dropout,
      augment=made_of(config, 'augment', Augment),
    )
    if config.val_every:
      # Validation shows pairs as they are, all routes and subjects alike.
      alike = dataclasses.replace(mixture, route_weights=(), subjects=1.0)
      held_out = iter(dataset('val', config.seed + 1, alike))
      val = [next(held_out) for _ in range(config.val_batches)]
  except UserError as error:
    raise ConfigError(str(error)) from error
  return data, val


def _check_best(
  config: ConfigDict,
  model: Bagel,
  step_config: loop.StepConfig,
  state: TrainState,
  rows: PackedBatch,
) -> None:
  """Refuses a `config.best` that the validation does not measure."""
  if config.best:
    step = loop.make_eval_step(model, step_config)
    terms = jax.eval_shape(step, state, rows, 0)
    check_best_is_measured(
      config, {t for t in terms if not t.startswith(loop.OF_TRAINING)}
    )


def _first_state(
  config: ConfigDict,
  model: Bagel,
  scales: dict[str, float],
  tx: optax.GradientTransformation,
  mesh: Mesh,
) -> TrainState:
  """The state of step 0: random parameters, or those of `config.init_from`."""
  return create_state(
    model,
    scales,
    tx,
    mesh,
    seed=config.seed,
    ema=config.ema > 0,
    initial=initial_params(config, model.config),
  )[0]


def _complete(
  stage: str,
  model: Bagel,
  data: TrainData | None,
  mesh: Mesh,
  state: TrainState,
) -> TrainState:
  """Scales the latents of a new autoencoder before its state is saved."""
  if stage != 'autoencoder':
    return state
  return calibrate_latents(model, state, iter(data), mesh)


def _step_utilisation(
  rows: int,
  model: Bagel,
  tx: optax.GradientTransformation,
  step_config: loop.StepConfig,
  state: TrainState,
  sample: PackedBatch,
  mesh: Mesh,
) -> float:
  """Share of the peak rate that one step a second uses; 0 = not known.

  Args:
    rows: rows of a batch, over all devices.
    sample: some rows of the data, whose visible blocks stand for all.
  """
  chip = chip_of(mesh.devices.flat[0])
  if not chip:
    return 0.0
  batch = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype), sample
  )
  needed = flops.step_flops(
    model, tx, step_config, state, batch, flops.needed_shares(sample)
  )
  return sum(needed.values()) / (chip.tflops * 1e12 * mesh.size)
