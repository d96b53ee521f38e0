"""Translates a volume of one modality to another, on the same grid.

trained = Trained.load('runs/demo/stage2')
route = ROUTES_BY_NAME['brain_mr_to_ct']
ct = translate(trained, read_volume('mr.nii.gz'), route)
"""

from __future__ import annotations

from tqdm import tqdm

from synermedgen_jax.config.sampling import SamplingConfig
from synermedgen_jax.core.modalities import Route
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

  Returns:
    A float32 volume with the shape and affine of the input: CT and CBCT in HU,
    PET in SUV, MR within `mr_window`.

  Raises:
    VolumeError: the window of the source cannot be computed, for example
      because the volume is constant.
  """
  synthesiser = trained.synthesiser(sampling, batch_size=batch_size)
  target = target_window(trained, route, mr_window)
  source = trained.slices.window(route.source, volume.data)
  grid = trained.slices.grid(volume, route.source, source)
  sampled = grids.resample(volume, grid, fill=source.low)
  slices = source.normalise(grids.to_slices(sampled))
  with tqdm(total=len(slices), desc=route.name, unit='slice') as bar:
    synthetic = synthesiser.synthesise(
      route, slices, seed=seed, progress=bar.update
    )
  data = grids.from_slices(target.denormalise(synthetic))
  on_grid = Volume(data, grid.affine)
  # Voxels outside the frame of the body are air.
  data = grids.resample(on_grid, grids.Grid.of(volume), fill=target.low)
  return Volume(data, volume.affine)


def target_window(
  trained: Trained, route: Route, mr_window: Window = _MR_WINDOW
) -> Window:
  """The values of black and white in a translated volume, in its unit."""
  return trained.slices.windows.get(route.target) or mr_window
