"""Turns the config of a system of the arena into a `Run`."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from synermedgen_jax.baselines.pair_data import PairBatch, pair_dataset
from synermedgen_jax.baselines.registry import SYSTEMS, make_system
from synermedgen_jax.baselines.system import Sums, System
from synermedgen_jax.config.errors import ConfigError, key_errors, made_of
from synermedgen_jax.config.model import saved_config, saved_params
from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.modalities import Route
from synermedgen_jax.core.sharding import BATCH_AXES, make_mesh
from synermedgen_jax.core.trees import flatten, unflatten
from synermedgen_jax.input.augment import Augment
from synermedgen_jax.input.streams import TrainData
from synermedgen_jax.slices.store import SliceStore
from synermedgen_jax.tasks.pairs import routes_in
from synermedgen_jax.training import loop
from synermedgen_jax.training.config_checks import (
  check_best_is_measured,
  check_store,
  check_system,
  local_streams,
)
from synermedgen_jax.training.objectives import (
  ObjectiveConfig,
  register_objective,
)
from synermedgen_jax.training.settings import loop_config, optimiser
from synermedgen_jax.training.train_state import abstract_state, create_state


def build_system(
  config: ConfigDict, devices: Sequence[jax.Device] | None = None
) -> loop.Run:
  """Builds a system, and refuses what cannot run before anything compiles.

  Args:
    config: config of a system, such as `configs.baselines.pix2pix`; changed.
    devices: devices of the mesh; None = all devices of this machine.

  Raises:
    ConfigError: one line naming the key that is wrong.
    StoreError: naming the file.
  """
  with key_errors('mesh'):
    mesh = make_mesh(config.mesh, devices)
  if config.rows == -1:
    config.rows = math.prod(mesh.shape[axis] for axis in BATCH_AXES)
  if config.streams == -1:
    config.streams = 1
  with key_errors('store'):
    store = SliceStore.open(config.store)
  check_store(config, store)
  routes = _routes(config, store)
  check_system(config, routes)
  config.modalities = _modalities(routes)
  config.autoencoder = _autoencoder(config)
  with key_errors('model'):
    system = make_system(config)
  with key_errors('size'):
    system.abstract_params()
  config.trainable = (
    *((f'{name}/.*', 0.0) for name in _frozen(system)),
    *config.trainable,
  )
  rows, val = _data(config, system, store, routes, mesh)
  scales, tx = optimiser(config, system)
  ema = config.ema > 0
  with key_errors('rows'):
    terms = _terms(system, next(iter(rows)))
  check_best_is_measured(config, {'loss', *terms})
  return loop.Run(
    config=config.to_dict(),
    model=system,
    rows=config.rows,
    mesh=mesh,
    scales=scales,
    tx=tx,
    state=abstract_state(system, scales, tx, mesh, ema=ema),
    create=lambda: create_state(
      system,
      scales,
      tx,
      mesh,
      seed=config.seed,
      ema=ema,
      initial=_initial_params(config, system),
    )[0],
    complete=lambda state: state,
    step=loop.StepConfig(
      stage=config.stage,
      objective=ObjectiveConfig(term_weights=system.weights),
      ema_decay=config.ema,
      seed=config.seed,
    ),
    loop=loop_config(config, 0.0),
    store=store,
    data=rows,
    val=val,
  )


def _autoencoder(config: ConfigDict) -> dict[str, Any]:
  """The shape of the autoencoder in `config.init_from`; {} without one."""
  if not config.init_from:
    return {}
  with key_errors('init_from'):
    saved = saved_config(config)
  return dict(saved.get('autoencoder') or {})


def _terms(system: System, batch: PairBatch) -> list[str]:
  """The terms of the loss; ValueError if a network refuses the batch."""
  memory = (system.initial_memory(),) if system.carries else ()
  sums = jax.eval_shape(
    lambda params, key: system.sums(params, batch, key, *memory),
    system.abstract_params(),
    jax.random.key(0),
  )
  return list(sums[0] if system.carries else sums)


def _frozen(system: System) -> list[str]:
  return [name for name in system.frozen if name in system.abstract_params()]


def _initial_params(config: ConfigDict, system: System) -> Any:
  """Random parameters, and those of `config.init_from` by the same name.

  None without `config.init_from`.

  Raises:
    ConfigError: it has no parameter of the system, or one of another shape.
  """
  if not config.init_from:
    return None
  with key_errors('init_from'):
    known = flatten(saved_params(config))
  random = flatten(system.initial_params(jax.random.key(config.seed)))
  shared = sorted(known.keys() & random.keys())
  other = [n for n in shared if known[n].shape != random[n].shape]
  if not shared or other:
    what = f'{other[0]} of another shape' if other else 'none of its parameters'
    raise ConfigError(
      f'config.init_from {config.init_from}: {config.stage} with the model '
      f'{config.model!r} finds {what} in it.'
    )
  return unflatten(random | {name: known[name] for name in shared})


def _routes(config: ConfigDict, store: SliceStore) -> list[Route]:
  """The routes to train, in the order of their names."""
  routes = routes_in(store.split('train'), config.routes)
  return sorted(routes, key=lambda route: route.name)


def _modalities(routes: Sequence[Route]) -> tuple[str, ...]:
  ends = {m.value for route in routes for m in (route.source, route.target)}
  return tuple(sorted(ends))


def _data(
  config: ConfigDict,
  system: System,
  store: SliceStore,
  routes: Sequence[Route],
  mesh: Mesh,
) -> tuple[TrainData, list[PairBatch]]:
  """The training data, and the batches of the validation."""
  names = [route.name for route in routes]
  if system.pair:  # the first modality is always the source
    names = [r.name for r in routes if r.source.value == config.modalities[0]]
  dataset = functools.partial(
    pair_dataset,
    store,
    size=tuple(config.size),
    modalities=config.modalities,
    rows=config.rows,
    routes=names,
    unpaired=not system.paired,
    streams=config.streams,
    local_streams=local_streams(config, mesh),
    threads=config.reader_threads,
  )
  val = []
  try:
    data = dataset(
      'train',
      seed=config.seed,
      route_weights=tuple(config.route_weights),
      augment=made_of(config, 'augment', Augment),
    )
    if config.val_every:
      held_out = iter(dataset('val', seed=config.seed + 1))
      val = [next(held_out) for _ in range(config.val_batches)]
  except UserError as error:
    raise ConfigError(str(error)) from error
  return data, val


def _system_sums(model: System, params, batch, key, config, tasks, *memory):
  del config, tasks  # the weights are those of the system
  return model.sums(params, batch, key, *memory)


def _statistics(model: System, batch: PairBatch) -> Sums:
  del model
  return {'images': (jax.numpy.float32(2 * len(batch.source)), 1.0)}


for _name, _system in SYSTEMS.items():
  register_objective(
    _name,
    _system_sums,
    tuple(_system.weights),
    statistics=_statistics,
    carries=_system.carries,
  )
