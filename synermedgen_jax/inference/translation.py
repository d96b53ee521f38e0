"""Translates volumes of one or more modalities to another, on the same grid.

trained = Trained.load('runs/demo/detail')
mr, route = read_volume('mr.nii.gz'), route_named('brain_mr_to_ct')
ct = translate(trained, {Modality.MR: mr}, route)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from synermedgen_jax.config.sampling import SamplingConfig
from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.modalities import Modality, Route
from synermedgen_jax.core.progress import Bar
from synermedgen_jax.core.size import size_text
from synermedgen_jax.inference.workdir import Trained
from synermedgen_jax.slices import grids
from synermedgen_jax.slices.framing import SliceSpec
from synermedgen_jax.slices.units import check_units
from synermedgen_jax.slices.volumes import (
  Volume,
  VolumeError,
  check_same_grid,
)
from synermedgen_jax.slices.windows import Window

MR_WINDOW = Window(0.0, 1000.0)
OVERRIDE = '--force'


class UntrainedRoute(UserError):
  """A route that the run was not trained on; one line that lists its routes."""


def check_route(routes: Sequence[str] | None, route: Route, run: str) -> None:
  """Refuses a route that a run was not trained on.

  Args:
    routes: names of the trained routes; None = not known, which is accepted.
    route: the requested route.
    run: name of the run, for the message.

  Raises:
    UntrainedRoute: listing the trained routes.
  """
  if routes is not None and route.name not in routes:
    raise UntrainedRoute(
      f'{run}: was not trained on {route.name}, only on '
      f'{", ".join(routes) or "no route"}; choose one of these, or '
      f'{OVERRIDE} to translate anyway.'
    )


def translate(
  trained: Trained,
  volumes: Mapping[Modality, Volume],
  route: Route,
  *,
  sampling: SamplingConfig | None = None,
  mr_window: Window = MR_WINDOW,
  seed: int = 0,
  batch_size: int = 16,
  force: bool = False,
  progress: Callable[[int], object] | None = None,
) -> Volume:
  """Synthesises the route's target from a volume of each of its sources.

  The volumes are cut into slices with the plane, frame and windows of the store
  that the run was trained on. The first one defines the slices.

  Args:
    trained: a run of Stage II or of joint training.
    volumes: source -> its volume, all on one grid: CT and CBCT in HU, PET in
      SUV, MR in any unit.
    route: sources and target.
    sampling: timesteps and guidance; None = those of the run's config.
    mr_window: values of black and white in an MR target, whose unit is
      arbitrary.
    seed: random seed of the diffusion noise.
    batch_size: slices per batch; the result does not depend on it.
    force: accept a route that the run was not trained on, and values that are
      not in the unit of their modality.
    progress: called after each batch with its number of slices; None = a
      progress bar.

  Returns:
    A float32 volume with the shape and affine of the first one: CT and CBCT in
    HU, PET in SUV, MR within `mr_window`. Voxels outside the frame of the body
    have the low end of the target's window: air.

  Raises:
    UntrainedRoute: the run was not trained on `route`.
    VolumeError: the volumes are not those of the sources, or not on one grid;
      values are not in the unit of their modality; or no pixel of a slice is
      inside the volumes.
    UserError: the window of a source cannot be computed, for example because
      its volume is constant.
  """
  names = {m: f'the {m.label} volume' for m in volumes}
  check_sources(volumes, route, names)
  if not force:
    check_route(trained.routes, route, 'the run')
    for modality, volume in volumes.items():
      check_units(names[modality], modality, volume, override='force=True')
  synthesiser = trained.synthesiser(sampling, batch_size=batch_size)
  target = target_window(trained, route, mr_window)
  grid, slices = cut(trained, volumes)
  sources = np.stack([slices.pop(m) for m in route.sources])
  volume = next(iter(volumes.values()))
  with Bar(route.name, sources.shape[1], 'slice', shown=not progress) as bar:
    synthetic = synthesiser.synthesise(
      route, sources, seed=seed, progress=progress or bar.update
    )
  made = Volume(grids.from_slices(target.denormalise(synthetic)), grid.affine)
  del sources, synthetic  # resampling takes several volumes of memory
  return on_grid_of(made, volume, target)


def on_grid_of(made: Volume, volume: Volume, window: Window) -> Volume:
  """Resamples a volume of a run's slices onto the grid of another volume.

  Args:
    made: values of the target in its unit.
    volume: has the grid of the result.
    window: of the target; its low end fills the places outside `made`.
  """
  data = grids.resample_back(made, grids.Grid.of(volume), fill=window.low).clip(
    window.low, window.high
  )
  return Volume(data, volume.affine)


def cut(
  trained: Trained | TrainedSystem | TrainedPairs,
  volumes: Mapping[Modality, Volume],
) -> tuple[grids.Grid, dict[Modality, Float[np.ndarray, 'z h w']]]:
  """Cuts volumes into slices of a run, in [-1, 1].

  Args:
    trained: the run, whose plane, frame and windows the slices have.
    volumes: modality -> its volume, in its unit. The first one defines the
      grid of the slices.

  Returns:
    The grid, and the slices of each modality.

  Raises:
    VolumeError: no pixel of a slice is inside a volume.
    UserError: a volume has no window, for example because it is constant.
  """
  windows = {m: trained.slices.window(m, v.data) for m, v in volumes.items()}
  first, volume = next(iter(volumes.items()))
  grid = trained.slices.grid(volume, first)
  return grid, {
    m: _slices(v, windows[m], grid, trained.slices) for m, v in volumes.items()
  }


def check_sources(
  volumes: Mapping[Modality, Volume],
  route: Route,
  names: Mapping[Modality, str | Path],
) -> None:
  """Refuses volumes of other modalities than the sources, or of several grids.

  Args:
    volumes: source -> its volume.
    route: the requested route.
    names: source -> name of its file, for messages.

  Raises:
    VolumeError: one line that names the modalities or the file.
  """
  if set(volumes) != set(route.sources):
    raise VolumeError(
      f'{route.name}: needs a volume of each of {", ".join(route.sources)}, '
      f'got {", ".join(volumes) or "none"}.'
    )
  first, *others = volumes
  for other in others:
    check_same_grid(
      names[other],
      volumes[other],
      names[first],
      volumes[first],
      remedy='resample the sources onto one grid first.',
    )


def _slices(
  volume: Volume, window: Window, grid: grids.Grid, spec: SliceSpec
) -> Float[np.ndarray, 'z h w']:
  """A volume's slices in [-1, 1]; places outside the volume are black."""
  sampled = grids.resample(window.clip(volume), grid, fill=np.nan)
  measured = np.isfinite(sampled)
  if not measured.any():
    raise VolumeError(
      f'a volume of shape {volume.data.shape} is narrower than a pixel of its '
      f'{spec.plane} slices of {size_text(spec.canvas)} pixels; crop its '
      'longer sides.'
    )
  sampled = np.where(measured, sampled, np.float32(window.low))
  return window.normalise(grids.to_slices(sampled))


def check_windows(slices: Mapping[str, SliceSpec], target: Modality) -> None:
  """Refuses runs whose results cannot be averaged.

  Each run clips the target to its own window, so the mean of two windows is
  neither's value where one of them clips.

  Args:
    slices: name of each run -> settings of its slices.
    target: modality of the result.

  Raises:
    UserError: one line that names the runs and their windows of the target.
  """
  windows = {name: spec.windows.get(target) for name, spec in slices.items()}
  if len(set(windows.values())) > 1:
    listed = ', '.join(
      f'{name} ({w.low:g} to {w.high:g} {target.unit})'
      if w
      else f'{name} (the window of each volume)'
      for name, w in windows.items()
    )
    raise UserError(
      f'The runs have other windows of {target.label} and cannot be averaged: '
      f'{listed}; name one of them, or runs of one window.'
    )


def target_window(
  trained: Trained, route: Route, mr_window: Window = MR_WINDOW
) -> Window:
  """The values of black and white in a translated volume, in its unit."""
  return trained.slices.windows.get(route.target) or mr_window
