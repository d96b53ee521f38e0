"""A volume of one modality to a volume of another, on the same grid.

trained = Trained.load('runs/demo/stage2')
route = ROUTES_BY_NAME['brain_mr_to_ct']
ct = translate(trained, read_volume('mr.nii.gz'), route)
"""

from __future__ import annotations

from tqdm import tqdm

from synermedgen_jax.core.modalities import Route
from synermedgen_jax.inference.sampling import SamplingConfig
from synermedgen_jax.inference.workdir import Trained
from synermedgen_jax.slices import grids
from synermedgen_jax.slices.volumes import Volume
from synermedgen_jax.slices.windows import Window

_MR_WINDOW = Window(0.0, 1000.0)


def translate(
  trained: Trained,
  volume: Volume,
  route: Route,
  *,
  sampling: SamplingConfig | None = None,
  mr_window: Window = _MR_WINDOW,
  seed: int = 0,
  batch_size: int = 16,
) -> Volume:
  """Synthesises the route's target from a volume of its source.

  The volume becomes slices as the store of the run did: plane, frame, window.

  Args:
    trained: a run of Stage II or of joint training.
    volume: of the source, in HU, SUV, or for MR any unit.
    route: source and target.
    sampling: timesteps and guidance; None = those of the run's config.
    mr_window: values of black and white of an MR target, which has no unit.
    seed: random seed of the diffusion noise.
    batch_size: slices at a time; the result does not depend on it.

  Returns:
    A volume of the same shape and affine, float32, in HU, SUV, or for MR in
    `mr_window`.

  Raises:
    VolumeError: the volume has no window, as where it is constant.
  """
  synthesiser = trained.synthesiser(sampling, batch_size=batch_size)
  target = target_window(trained, route, mr_window)
  source = trained.slices.window(route.source, volume.data)
  grid = trained.slices.grid(volume, route.source, source)
  sampled = grids.resample(volume, grid, fill=source.low)
  slices = source.normalise(grids.to_slices(sampled))
  with tqdm(total=len(slices), desc=route.name, unit='slice') as bar:
    made = synthesiser.synthesise(route, slices, seed=seed, progress=bar.update)
  on_grid = Volume(grids.from_slices(target.denormalise(made)), grid.affine)
  # Places outside the frame of the body are air.
  data = grids.resample(on_grid, grids.Grid.of(volume), fill=target.low)
  return Volume(data, volume.affine)


def target_window(
  trained: Trained, route: Route, mr_window: Window = _MR_WINDOW
) -> Window:
  """The values of black and white in a translated volume."""
  return trained.slices.windows.get(route.target) or mr_window
