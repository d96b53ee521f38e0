"""Synthesises a volume of one modality from a volume of another.

  python -m synermedgen_jax.translate --workdir=runs/demo/stage2 \\
      --input=mr.nii.gz --source=mr --target=ct --region=brain \\
      --output=ct.nii.gz

Slices are synthesised one by one in the plane that the model was trained on.
The output has the shape and affine of the input. Its unit is HU for CT and
CBCT, SUV for PET, and for MR values from --low to --high. --points, --shift,
--text_scale, --image_scale, --interval and --renorm override the sampling of
the run's config.
"""

from pathlib import Path

from absl import flags

from synermedgen_jax.config.command_line import run_command
from synermedgen_jax.config.modules import check_imported, import_modules
from synermedgen_jax.core.modalities import Modality, Region, find_route
from synermedgen_jax.inference.sampling_flags import define_sampling_flags
from synermedgen_jax.inference.translation import target_window, translate
from synermedgen_jax.inference.workdir import Trained, WorkdirError
from synermedgen_jax.slices.volumes import (
  NIFTI,
  VolumeError,
  read_volume,
  write_volume,
)
from synermedgen_jax.slices.windows import Window
from synermedgen_jax.training.objectives import OBJECTIVES

_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Workdir of a trained Stage II or joint run.'
)
_MODULES = flags.DEFINE_list(
  'modules',
  [],
  'Python modules to import, which register the tasks, objectives, modalities '
  'and metrics of the run. Default: none.',
)
_INPUT = flags.DEFINE_string(
  'input', None, 'Source volume, a NIfTI or MetaImage file.'
)
_SOURCE = flags.DEFINE_string(
  'source', None, 'Modality of the input: ct, cbct, pet, mr, t1, ...'
)
_TARGET = flags.DEFINE_string('target', None, 'Modality to synthesise.')
_REGION = flags.DEFINE_string(
  'region', None, 'Body region: brain, pelvis or whole_body.'
)
_OUTPUT = flags.DEFINE_string('output', None, 'NIfTI file to write.')
_BATCH = flags.DEFINE_integer(
  'batch_size', 16, 'Slices per batch.', lower_bound=1
)
_SAMPLING = define_sampling_flags()
_SEED = flags.DEFINE_integer('seed', 0, 'Random seed of the diffusion noise.')
_LOW = flags.DEFINE_float(
  'low', 0.0, 'Value of black in an MR target, which has no unit.'
)
_HIGH = flags.DEFINE_float(
  'high', 1000.0, 'Value of white in an MR target, which has no unit.'
)


def main() -> None:
  import_modules(_MODULES.value)
  route = find_route(
    Region.parse(_REGION.value),
    Modality.parse(_SOURCE.value),
    Modality.parse(_TARGET.value),
  )
  output = Path(_OUTPUT.value)
  if not output.name.lower().endswith(NIFTI):
    raise VolumeError(
      f'--output {output}: expected a name ending in {" or ".join(NIFTI)}.'
    )
  volume = read_volume(_INPUT.value)
  trained = Trained.load(_WORKDIR.value)
  check_imported(trained.config.get('modules', ()), _WORKDIR.value)
  stage = OBJECTIVES.get(trained.config['stage'])
  if stage is None or 'flow' not in stage.terms:
    raise WorkdirError(
      f'{_WORKDIR.value}: stage {trained.config["stage"]} does not train '
      'synthesis; give the workdir of Stage II or of joint training.'
    )
  # MR has no unit, so flags set its scale.
  mr_window = Window(_LOW.value, _HIGH.value)
  synthetic = translate(
    trained,
    volume,
    route,
    sampling=_SAMPLING(trained.sampling),
    mr_window=mr_window,
    seed=_SEED.value,
    batch_size=_BATCH.value,
  )
  target = target_window(trained, route, mr_window)
  write_volume(output, synthetic, like=_INPUT.value)
  print(
    f'{output}: {route.target.label} in {route.target.unit}, '
    f'{target.low:g} to {target.high:g}, shape {synthetic.data.shape}.'
  )


if __name__ == '__main__':
  run_command(
    main,
    required=['workdir', 'input', 'source', 'target', 'region', 'output'],
  )
