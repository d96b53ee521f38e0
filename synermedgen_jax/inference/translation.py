"""Translates a volume of one modality to another, on the same grid.

trained = Trained.load('runs/demo/stage2')
route = ROUTES_BY_NAME['brain_mr_to_ct']
ct = translate(trained, read_volume('mr.nii.gz'), route)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from synermedgen_jax.config.sampling import SamplingConfig
from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.modalities import Route
from synermedgen_jax.core.size import size_text
from synermedgen_jax.inference.workdir import Trained
from synermedgen_jax.slices import grids
from synermedgen_jax.slices.units import check_units
from synermedgen_jax.slices.volumes import Volume, VolumeError
from synermedgen_jax.slices.windows import Window

_MR_WINDOW = Window(0.0, 1000.0)
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
  volume: Volume,
  route: Route,
  *,
  sampling: SamplingConfig | None = None,
  mr_window: Window = _MR_WINDOW,
  seed: int = 0,
  batch_size: int = 16,
  force: bool = False,
) -> Volume:
  """Synthesises the route's target from a volume of its source.

  The volume is cut into slices with the plane, frame and windows of the store
  that the run was trained on.

  Args:
    trained: a run of Stage II or of joint training.
    volume: volume of the source: CT and CBCT in HU, PET in SUV, MR in any
      unit.
    route: source and target.
    sampling: timesteps and guidance; None = those of the run's config.
    mr_window: values of black and white in an MR target, whose unit is
      arbitrary.
    seed: random seed of the diffusion noise.
    batch_size: slices per batch; the result does not depend on it.
    force: accept a route that the run was not trained on, and values that are
      not in the unit of the source.

  Returns:
    A float32 volume with the shape and affine of the input: CT and CBCT in HU,
    PET in SUV, MR within `mr_window`. Voxels outside the frame of the body have
    the low end of the target's window: air.

  Raises:
    UntrainedRoute: the run was not trained on `route`.
    VolumeError: the values are not in the unit of the source, or no pixel of a
      slice is inside the volume.
    UserError: the window of the source cannot be computed, for example because
      the volume is constant.
  """
  if not force:
    check_route(trained.routes, route, 'the run')
    check_units('the volume', route.source, volume, override='force=True')
  synthesiser = trained.synthesiser(sampling, batch_size=batch_size)
  target = target_window(trained, route, mr_window)
  source = trained.slices.window(route.source, volume.data)
  grid = trained.slices.grid(volume, route.source, source)
  sampled = grids.resample(source.clip(volume), grid, fill=np.nan)
  measured = np.isfinite(sampled)
  if not measured.any():
    raise VolumeError(
      f'a volume of shape {volume.data.shape} is narrower than a pixel of its '
      f'{trained.slices.plane} slices of '
      f'{size_text(trained.slices.canvas)} pixels; crop its longer sides.'
    )
  sampled = np.where(measured, sampled, np.float32(source.low))
  slices = source.normalise(grids.to_slices(sampled))
  with tqdm(total=len(slices), desc=route.name, unit='slice') as bar:
    synthetic = synthesiser.synthesise(
      route, slices, seed=seed, progress=bar.update
    )
  on_grid = Volume(
    grids.from_slices(target.denormalise(synthetic)), grid.affine
  )
  data = grids.resample_back(
    on_grid, grids.Grid.of(volume), fill=target.low
  ).clip(target.low, target.high)
  return Volume(data, volume.affine)


def target_window(
  trained: Trained, route: Route, mr_window: Window = _MR_WINDOW
) -> Window:
  """The values of black and white in a translated volume, in its unit."""
  return trained.slices.windows.get(route.target) or mr_window
