"""Loads a trained system of the arena, with the interface of `Trained`."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.extend
import numpy as np
from etils.epath import Path
from jaxtyping import Float

from synermedgen_jax.baselines.registry import make_system
from synermedgen_jax.baselines.system import System
from synermedgen_jax.checkpoint import model as saved_model
from synermedgen_jax.checkpoint.weights_folder import local_folder
from synermedgen_jax.core.compiling import compiling
from synermedgen_jax.core.modalities import Route, route_named
from synermedgen_jax.inference.workdir import RunRecord, WorkdirError
from synermedgen_jax.input.pixels import from_pixels, to_pixels
from synermedgen_jax.slices.framing import SliceSpec

Slices = Float[np.ndarray, 'z h w']


@dataclasses.dataclass(frozen=True)
class SystemSampling:
  """Settings of a system's synthesis, in the place of `SamplingConfig`."""

  system: str


@dataclasses.dataclass(frozen=True)
class SystemSynthesiser:
  """A system that synthesises slices in batches of equal shape.

  Attributes:
    system: networks and how they synthesise.
    params: their parameters.
    batch_size: slices per batch; results do not depend on it.
  """

  system: System
  params: Any
  batch_size: int = 16

  @property
  def sampling(self) -> SystemSampling:
    return SystemSampling(self.system.title)

  def synthesise(
    self,
    route: Route,
    sources: Float[np.ndarray, '1 z h w'],
    *,
    seed: int = 0,
    progress: Callable[[int], object] | None = None,
  ) -> Slices:
    """Synthesises slices of the route's target from slices of its source.

    Args:
      route: source -> target, one of the trained routes.
      sources: slices of the one source in [-1, 1], of any height and width.
      seed: random seed, if the system samples.
      progress: called after each batch with its number of slices.

    Returns:
      Slices (z, h, w) of the same height and width, float32 in [-1, 1].

    Raises:
      UserError: the route has several sources.
    """
    key = jax.random.key(seed)
    ends = self._ends(route)

    def run(images, indices):
      keys = jax.vmap(lambda index: jax.random.fold_in(key, index))(indices)
      ids = [np.full(len(images), end, np.int32) for end in ends]
      with compiling(f'synthesis by {self.system.title}'):
        return _synthesise(self.system, self.params, images, *ids, keys)

    return self._run(run, sources[0], progress)

  def traced(self, route: Route) -> jax.extend.core.ClosedJaxpr:
    """The program that synthesises one slice of a route."""
    image = self.system.example()
    ids = [np.full(1, end, np.int32) for end in self._ends(route)]
    keys = jax.random.split(jax.random.key(0), 1)
    return jax.make_jaxpr(functools.partial(_synthesise, self.system))(
      self.params, image, *ids, keys
    )

  def reconstruct(
    self,
    slices: Slices,
    *,
    progress: Callable[[int], object] | None = None,
  ) -> Slices:
    """Fits slices to the images of the system and back: its upper bound.

    A system in latents encodes and decodes them.

    Args:
      slices: slices in [-1, 1], of any height and width.
      progress: as of `synthesise`.

    Returns:
      Slices of the same shape, float32 in [-1, 1].
    """

    def run(images, _):
      with compiling('the autoencoder'):
        return _reconstruct(self.system, self.params, images)

    return self._run(run, slices, progress)

  def _ends(self, route: Route) -> tuple[int, int]:
    """Source and target of the route, as indices of modalities."""
    names = self.system.config.setting.modalities
    return names.index(route.source.value), names.index(route.target.value)

  def _run(self, run, slices, progress) -> Slices:
    slices = np.asarray(slices, np.float32)
    size = self.system.config.setting.size
    out = np.empty(slices.shape, np.float32)
    for indices, count in self._batches(len(slices)):
      images = np.stack([to_pixels(slices[i], size, 1) for i in indices])
      made = np.asarray(run(images, indices), np.float32)[:count, ..., 0]
      for index, image in zip(indices, made, strict=False):
        out[index] = from_pixels(image, slices.shape[1:])
      if progress:
        progress(count)
    return np.clip(out, -1.0, 1.0)

  def _batches(self, total: int) -> Iterator[tuple[np.ndarray, int]]:
    """Indices of each batch, the last one repeated, and the distinct ones."""
    size = min(self.batch_size, 1 << (total - 1).bit_length())
    for start in range(0, total, size):
      indices = np.arange(start, start + size)
      yield np.minimum(indices, total - 1), min(size, total - start)


@functools.partial(jax.jit, static_argnames=('system',))
def _synthesise(system: System, params, source, source_ids, target_ids, keys):
  return system.synthesise(params, source, source_ids, target_ids, keys)


@functools.partial(jax.jit, static_argnames=('system',))
def _reconstruct(system: System, params, images):
  return system.reconstruct(params, images)


@dataclasses.dataclass(frozen=True)
class TrainedSystem:
  """A trained system with everything that inference needs.

  Attributes:
    system: networks and how they synthesise.
    params: parameters of the networks that synthesis uses.
    config: config of the run, as plain values.
    slices: canvas, plane, frame and windows of the training slices.
    routes: names of the routes that it was trained on.
    steps: step of its checkpoint.
  """

  system: System
  params: Any
  config: Mapping[str, Any]
  slices: SliceSpec
  routes: tuple[str, ...] | None
  steps: tuple[int, ...] = ()

  @classmethod
  def load(cls, workdir: str | Path) -> TrainedSystem:
    """Loads the newest checkpoint of a workdir.

    Raises:
      WorkdirError: the workdir has no valid config.json.
      CheckpointError: the workdir has no complete checkpoint.
    """
    workdir = Path(workdir)
    record = RunRecord.load(workdir)
    try:
      system = make_system(record.config)
    except (KeyError, TypeError, ValueError) as error:
      raise WorkdirError(f'{workdir}/config.json: {error}.') from None
    checkpoints = workdir / 'checkpoints'
    step = saved_model.newest_step(checkpoints)
    params = saved_model.load_params(checkpoints, which=str(step))
    params = {name: params[name] for name in system.used if name in params}
    return cls(
      system,
      jax.tree.map(jax.numpy.asarray, params),
      record.config,
      record.slices,
      record.routes,
      (step,),
    )

  @property
  def title(self) -> str:
    return self.system.title

  @property
  def paired(self) -> bool:
    return self.system.paired

  def serves(self, route: Route) -> bool:
    """Whether it was trained on the route, or on its modalities elsewhere.

    A system of all routes knows modalities and no region, so it can synthesise
    a CT of the thorax from MR after training on brains.
    """
    if not self.system.config.setting.conditioned:
      return route.name in self.routes
    known = map(route_named, self.routes)
    return (route.sources, route.target) in {
      (own.sources, own.target) for own in known
    }

  @property
  def departures(self) -> tuple[str, ...]:
    """Those of the system, and the preset where it is not the published one."""
    preset = self.config['model']
    if preset.startswith('published'):
      return self.system.departures
    return (
      *self.system.departures,
      f'preset {preset}: other networks, {self.config["optimizer"]}, rate '
      f'{self.config["learning_rate"]:g} for every network, '
      f'{self.config["rows"]} pairs a step',
    )

  def synthesiser(
    self, sampling: Any = None, *, batch_size: int = 16
  ) -> SystemSynthesiser:
    """A `SystemSynthesiser` with these networks; `sampling` has no effect."""
    del sampling
    return SystemSynthesiser(self.system, self.params, batch_size)


@dataclasses.dataclass(frozen=True)
class TrainedPairs:
  """A system that is trained on each pair of modalities: one run per pair.

  Attributes:
    runs: the runs; together they have the routes of the system.
  """

  runs: tuple[TrainedSystem, ...]

  @classmethod
  def load(cls, folder: str | Path) -> TrainedPairs:
    """Loads every run below a folder; raises the errors of `TrainedSystem`."""
    return cls(tuple(map(TrainedSystem.load, _workdirs(Path(folder)))))

  @property
  def config(self) -> Mapping[str, Any]:
    """Config of the first run; the others differ in routes."""
    return self.runs[0].config

  @property
  def slices(self) -> SliceSpec:
    return self.runs[0].slices

  @property
  def title(self) -> str:
    return self.runs[0].title

  @property
  def paired(self) -> bool:
    return self.runs[0].paired

  @property
  def departures(self) -> tuple[str, ...]:
    return self.runs[0].departures

  @property
  def steps(self) -> tuple[int, ...]:
    """Step of the checkpoint of each run."""
    return tuple(step for run in self.runs for step in run.steps)

  @property
  def routes(self) -> tuple[str, ...]:
    return tuple(sorted(name for run in self.runs for name in run.routes))

  def serves(self, route: Route) -> bool:
    """Whether one of the runs was trained on the route."""
    return route.name in self.routes

  def synthesiser(
    self, sampling: Any = None, *, batch_size: int = 16
  ) -> PairsSynthesiser:
    """A synthesiser of the routes of all runs."""
    return PairsSynthesiser(
      {
        name: run.synthesiser(sampling, batch_size=batch_size)
        for run in self.runs
        for name in run.routes
      }
    )


@dataclasses.dataclass(frozen=True)
class PairsSynthesiser:
  """Synthesises each route with the run that was trained on it.

  Attributes:
    of_route: name of the route -> its synthesiser.
  """

  of_route: Mapping[str, SystemSynthesiser]

  @property
  def sampling(self) -> SystemSampling:
    return next(iter(self.of_route.values())).sampling

  def synthesise(
    self, route: Route, sources: Float[np.ndarray, '1 z h w'], **options
  ) -> Slices:
    """As `SystemSynthesiser.synthesise`."""
    return self.of_route[route.name].synthesise(route, sources, **options)

  def traced(self, route: Route) -> jax.extend.core.ClosedJaxpr:
    """As `SystemSynthesiser.traced`."""
    return self.of_route[route.name].traced(route)

  def reconstruct(self, slices: Slices, **options) -> Slices:
    """As `SystemSynthesiser.reconstruct`."""
    first = next(iter(self.of_route.values()))
    return first.reconstruct(slices, **options)


def load_system(folder: str | Path) -> TrainedSystem | TrainedPairs | None:
  """The system whose workdir, or folder of workdirs, this is; None if neither.

  An address of a weights folder on the hub is neither.

  Raises:
    WorkdirError, CheckpointError: as of `TrainedSystem.load`.
    HubError: the weights folder cannot be downloaded.
  """
  folder = Path(local_folder(folder))
  if _scope(folder):
    return TrainedSystem.load(folder)
  workdirs = _workdirs(folder)
  if not workdirs:
    return None
  if {_scope(path) for path in workdirs} != {'pair'}:
    raise WorkdirError(
      f'{folder}: holds the workdirs of several systems; name one of '
      f'{", ".join(path.name for path in workdirs)}.'
    )
  return TrainedPairs.load(folder)


def _workdirs(folder: Path) -> list[Path]:
  """The workdirs of systems in a folder."""
  if not folder.is_dir():
    return []
  return [path for path in sorted(folder.iterdir()) if _scope(path)]


def _scope(workdir: Path) -> str:
  """The scope of a system's workdir; '' if it is not one."""
  path = workdir / 'config.json'
  if not path.is_file():
    return ''
  try:
    return json.loads(path.read_bytes())['config'].get('scope', '')
  except (ValueError, KeyError, TypeError, AttributeError):
    return ''  # `RunRecord.load` says what is wrong
