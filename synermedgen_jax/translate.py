"""Synthesises a volume of one modality from volumes of others.

  python -m synermedgen_jax.translate --workdir=runs/demo/detail \\
      --input=mr.nii.gz --source=mr --target=ct --region=brain \\
      --output=ct.nii.gz
  python -m synermedgen_jax.translate --workdir=RUN/stage2 \\
      --input=t1.nii.gz,t2.nii.gz --source=t1,t2 --target=t1ce \\
      --region=brain --output=t1ce.nii.gz

Slices are synthesised in the plane that the model was trained on, one by one or
in slabs (--slab).
Routes that it was not trained on, and an input whose values are not in the unit
of its modality, are refused before the model is loaded; --force accepts both.
Several inputs share one grid; --source names the modality of each. The output
has the shape and affine of the first input. Its unit is HU for CT and CBCT, SUV
for PET, and for MR values from --low to --high. --points, --shift, --slab,
--draws, --grain, --text_scale, --image_scale, --interval and --renorm override
the sampling of the run's config. With --describe_first, the model writes a text
about each source slice before it synthesises.
"""

import sys
from pathlib import Path

import numpy as np
from absl import flags

from synermedgen_jax.config.command_line import (
  UsageError,
  define_modules_flag,
  run_command,
)
from synermedgen_jax.config.modules import check_imported, import_modules
from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.modalities import Modality, Region, Route, find_route
from synermedgen_jax.inference.sampling_flags import define_sampling_flags
from synermedgen_jax.inference.trained_system import (
  TrainedPairs,
  TrainedSystem,
  load_system,
)
from synermedgen_jax.inference.translation import (
  OVERRIDE,
  check_route,
  check_sources,
  target_window,
  translate,
)
from synermedgen_jax.inference.workdir import RunRecord, Trained, WorkdirError
from synermedgen_jax.slices.units import check_units
from synermedgen_jax.slices.volumes import (
  NIFTI,
  Volume,
  VolumeError,
  check_writable,
  read_volume,
  write_volume,
)
from synermedgen_jax.slices.windows import Window
from synermedgen_jax.training.objectives import OBJECTIVES

_WORKDIR = flags.DEFINE_list(
  'workdir',
  None,
  'Workdir of a trained run that synthesises. Several, separated by commas, '
  'give the mean of their volumes: runs of stores in the axial, coronal and '
  'sagittal plane, for example.',
)
_MODULES = define_modules_flag()
_INPUT = flags.DEFINE_list(
  'input',
  None,
  'Source volumes, separated by commas, on one grid; the first gives the '
  'geometry of the output. Each is a NIfTI, MetaImage or NRRD file, or a '
  'folder or zip of DICOM files. A path with a comma stands in double quotes.',
)
_SERIES = flags.DEFINE_list(
  'series',
  [],
  'DICOM series of inputs that hold several, one for each input: its number, '
  'description or modality; empty for an input with one.',
)
_SOURCE = flags.DEFINE_list(
  'source',
  None,
  'Modality of each input, in the same order: ct, cbct, pet, mr, t1, ...',
)
_TARGET = flags.DEFINE_string('target', None, 'Modality to synthesise.')
_REGION = flags.DEFINE_string(
  'region', None, f'Body region: {", ".join(Region)}.'
)
_OUTPUT = flags.DEFINE_string('output', None, 'NIfTI file to write.')
_BATCH = flags.DEFINE_integer(
  'batch_size', 16, 'Slices per batch.', lower_bound=1
)
_SAMPLING = define_sampling_flags()
_SEED = flags.DEFINE_integer('seed', 0, 'Random seed of the diffusion noise.')
_FORCE = flags.DEFINE_bool(
  'force',
  False,
  'Translate a route that the run was not trained on, and values that are not '
  'in HU (CT, CBCT) or SUV (PET), or are not those of an MR.',
)
_LOW = flags.DEFINE_float(
  'low', 0.0, 'Value of black in an MR target, which has no unit.'
)
_HIGH = flags.DEFINE_float(
  'high', 1000.0, 'Value of white in an MR target, which has no unit.'
)


def _check_counts() -> None:
  """Refuses flags with another number of values than --input."""
  inputs = len(_INPUT.value)
  for flag, known in ((_SOURCE, [inputs]), (_SERIES, [0, inputs])):
    if len(flag.value) not in known:
      raise UsageError(
        f'--{flag.name}: has {len(flag.value)} value(s) for {inputs} input(s); '
        'name one for each, separated by commas.'
      )


def _route() -> Route:
  try:
    return find_route(
      Region.parse(_REGION.value),
      list(map(Modality.parse, _SOURCE.value)),
      Modality.parse(_TARGET.value),
    )
  except UserError as error:
    hint = ' --modules names the module of a project that registers others.'
    raise UsageError(f'{error}{"" if _MODULES.value else hint}') from None


def _check_run(workdir: str, route: Route) -> None:
  """Refuses a run that does not synthesise, or not this route."""
  record = RunRecord.load(workdir)
  check_imported(record.config.get('modules', ()), workdir)
  stage = OBJECTIVES.get(record.config['stage'])
  if stage is None or 'flow' not in stage.terms:
    raise WorkdirError(
      f'{workdir}: stage {record.config["stage"]} does not train '
      'synthesis; give the workdir of Stage II or of joint training.'
    )
  if record.routes is None:
    print(
      f'{workdir}: the routes on which it was trained are not known, so '
      f'{route.name} is not checked.',
      file=sys.stderr,
    )
  elif not _FORCE.value:
    check_route(record.routes, route, workdir)


def _check_system(
  workdir: str, system: TrainedSystem | TrainedPairs, route: Route
) -> None:
  """Refuses a route that a system was not trained on; --force cannot help."""
  if route.name not in system.routes:
    raise WorkdirError(
      f'{workdir}: {system.title} was not trained on {route.name}, only '
      f'on {", ".join(system.routes)}.'
    )


def _read(route: Route) -> dict[Modality, Volume]:
  """The inputs by their modality, in the order of the flags."""
  paths = dict(
    zip(map(Modality.parse, _SOURCE.value), _INPUT.value, strict=True)
  )
  series = dict(zip(paths, _SERIES.value, strict=False))
  volumes = {}
  for modality, path in paths.items():
    volumes[modality] = read_volume(path, series=series.get(modality, ''))
    if not _FORCE.value:
      check_units(path, modality, volumes[modality], override=OVERRIDE)
  check_sources(volumes, route, paths)
  return volumes


def main() -> None:
  import_modules(_MODULES.value)
  _check_counts()
  route = _route()
  systems = {workdir: load_system(workdir) for workdir in _WORKDIR.value}
  for workdir, system in systems.items():
    if system:
      _check_system(workdir, system, route)
      _SAMPLING.refuse(f'{system.title} samples as it was trained')
    else:
      _check_run(workdir, route)
  output = Path(_OUTPUT.value)
  if not output.name.lower().endswith(NIFTI):
    raise VolumeError(
      f'--output {output}: expected a name ending in {" or ".join(NIFTI)}.'
    )
  volumes = _read(route)
  first = _INPUT.value[0]
  check_writable(output, like=first, inputs=_INPUT.value)
  # MR has no unit, so flags set its scale.
  mr_window = Window(_LOW.value, _HIGH.value)
  total = 0.0
  for workdir, system in systems.items():
    trained = system or Trained.load(workdir)
    synthetic = translate(
      trained,
      volumes,
      route,
      sampling=None if system else _SAMPLING.apply(trained.sampling),
      mr_window=mr_window,
      seed=_SEED.value,
      batch_size=_BATCH.value,
      force=True,  # checked above
    )
    total += synthetic.data / np.float32(len(systems))
  target = target_window(trained, route, mr_window)
  write_volume(output, Volume(total, synthetic.affine), like=first)
  print(
    f'{output}: {route.target.label} in {route.target.unit}, '
    f'{target.low:g} to {target.high:g}, shape {total.shape}.'
  )


if __name__ == '__main__':
  run_command(
    main,
    required=['workdir', 'input', 'source', 'target', 'region', 'output'],
  )
