"""Predicts volumes of one modality from volumes of others.

  synermedgen predict --workdir=RUN/stage2 -i mr.nii.gz --source=mr \\
      --target=ct --region=brain -o ct.nii.gz
  synermedgen predict --workdir=RUN/stage2 -i FOLDER --source=mr \\
      --target=ct --region=brain -o OUTPUTS
  synermedgen predict --workdir=RUN/stage2 -i TABLE.csv --source=t1,t2 \\
      --target=t1ce -o OUTPUTS

  synermedgen predict --demo

The input is a volume (NIfTI, MetaImage, NRRD, a folder or zip of DICOM files),
a volume of each source, a folder of volumes, or a table as of
`prepare --dataset=csv`. The model is loaded and compiled once. After an
interruption, the same command predicts the volumes that are missing.

The model first reads which modality each source shows. Another family than
stated (CT or CBCT, MR, PET) is refused, as are routes that the run was not
trained on and values in another unit; --force accepts them. The output is read
too, and compared with the source.

An output has the grid of the first source. Its unit is HU for CT and CBCT
(int16), SUV for PET, and for MR values from --low to --high (float32). Beside
ct.nii.gz, ct.json states sources, checkpoint, sampling, what was read, and
warnings; --preview adds ct.png, --report a page with a viewer, and --intervals
ct_low.nii.gz and ct_high.nii.gz, between which 90 % of the voxels are expected.

--points, --shift, --slab, --draws, --grain, --text_scale, --image_scale,
--interval and --renorm override the sampling of the run's config. With
--describe_first, the model writes a text about each source slice before it
synthesises.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from absl import flags

from synermedgen_jax.config.command_line import (
  UsageError,
  define_modules_flag,
  run_command,
)
from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.modalities import Modality, Region
from synermedgen_jax.inference.sampling_flags import define_sampling_flags

_DEMO = flags.DEFINE_bool(
  'demo',
  False,
  'Predict the CT of a phantom with the weights of the package. All other '
  'flags are optional.',
)
_WORKDIR = flags.DEFINE_list(
  'workdir',
  None,
  'Workdir of a trained run that synthesises, or its weights folder, also on '
  'the Hugging Face hub (hf://OWNER/NAME[@REVISION]). Several, separated by '
  'commas, give the mean of their volumes: runs of stores in the axial, '
  'coronal and sagittal plane, for example. All must have one window of the '
  'target.',
)
_MODULES = define_modules_flag()
_INPUT = flags.DEFINE_list(
  'input',
  None,
  'Source volumes, separated by commas, on one grid; the first gives the '
  'geometry of the output. Each is a NIfTI, MetaImage or NRRD file, or a '
  'folder or zip of DICOM files. Or: a folder of volumes, or a table (.csv). A '
  'path with a comma stands in double quotes.',
  short_name='i',
)
_DATASET = flags.DEFINE_string(
  'dataset',
  '',
  'Layout of an input folder, as of `prepare`: folder, flat, nnunet, bids. '
  'Default: every volume directly in the folder is an input of the only '
  'source.',
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
  'Modality of each input, in the same order: '
  f'{", ".join(Modality)}, or one that --modules registers.',
)
_TARGET = flags.DEFINE_string(
  'target', None, f'Modality to synthesise: {", ".join(Modality)}.'
)
_REGION = flags.DEFINE_string(
  'region',
  None,
  f'Body region: {", ".join(Region)}. Required, unless a table names it.',
)
_OUTPUT = flags.DEFINE_string(
  'output',
  None,
  'NIfTI file to write; for a folder or table of inputs, a folder.',
  short_name='o',
)
_PREVIEW = flags.DEFINE_bool(
  'preview', False, 'Write a picture in three planes beside each output.'
)
_INTERVALS = flags.DEFINE_bool(
  'intervals',
  False,
  'Write also the low and the high end of an interval that covers 90 % of the '
  'voxels in the body, as evaluate --intervals measured it. Every slice is '
  'synthesised 8 times more, or as often as it was measured with. Default: no.',
)
_REPORT = flags.DEFINE_bool(
  'report',
  False,
  'Write a page with a viewer of sources and outputs and with all checks: '
  'NAME.html beside the output NAME.nii.gz, or index.html in the folder.',
)
_OVERWRITE = flags.DEFINE_bool(
  'overwrite',
  False,
  'Predict again the volumes of a folder or table that are finished with the '
  'same settings.',
)
_READ = flags.DEFINE_bool(
  'read',
  True,
  'The model reads which modality sources and outputs show, and compares them.',
)
_BATCH = flags.DEFINE_integer(
  'batch_size', 16, 'Slices per batch.', lower_bound=1
)
_SAMPLING = define_sampling_flags()
_SEED = flags.DEFINE_integer('seed', 0, 'Random seed of the diffusion noise.')
_FORCE = flags.DEFINE_bool(
  'force',
  False,
  'Accept a route that the run was not trained on, values that are not in HU '
  '(CT, CBCT) or SUV (PET) or are not those of an MR, and sources that show '
  'another family of modalities than stated.',
)
_LOW = flags.DEFINE_float(
  'low', 0.0, 'Value of black in an MR target, which has no unit.'
)
_HIGH = flags.DEFINE_float(
  'high', 1000.0, 'Value of white in an MR target, which has no unit.'
)


def _check_counts(inputs: int, several: bool) -> None:
  """Refuses flags with another number of values than --input."""
  rules = [(_SERIES, [0] if several else [0, inputs])]
  if not several:
    rules.append((_SOURCE, [inputs]))
  for flag, known in rules:
    if len(flag.value) not in known:
      raise UsageError(
        f'--{flag.name}: has {len(flag.value)} value(s) for {inputs} input(s); '
        'name one for each, separated by commas.'
      )


@contextlib.contextmanager
def _hinted() -> Iterator[None]:
  """Adds to an error of a name or route that a project may register others."""
  try:
    yield
  except UserError as error:
    if type(error) is not UserError or _MODULES.value:
      raise
    hint = '--modules names the module of a project that registers others.'
    raise UsageError(f'{error} {hint}') from None


def _requests(
  sources: Sequence[Modality], target: Modality, region: Region | None
):
  from synermedgen_jax.inference import prediction_inputs as inputs

  paths, output = list(map(Path, _INPUT.value)), Path(_OUTPUT.value)
  several = len(paths) == 1 and inputs.holds_several(paths[0])
  _check_counts(len(paths), several)
  if several:
    return inputs.several_volumes(
      paths[0], _DATASET.value, sources, target, region, output
    )
  if _DATASET.value:
    raise UsageError('--dataset: names the layout of a folder; leave it out.')
  if region is None:
    raise UsageError('--region is required. See --help.')
  return inputs.one_volume(
    paths, sources, _SERIES.value, target, region, output
  )


def _use_demo() -> None:
  """Makes the flags that are not given those of the demo."""
  from synermedgen_jax.inference import demo

  flags.set_default(_WORKDIR, [str(demo.weights())])
  flags.set_default(_INPUT, [str(demo.volumes()[Modality.MR])])
  flags.set_default(_SOURCE, [Modality.MR.value])
  flags.set_default(_TARGET, Modality.CT.value)
  flags.set_default(_REGION, demo.REGION.value)
  flags.set_default(_OUTPUT, 'demo_ct.nii.gz')
  flags.set_default(_PREVIEW, True)
  flags.set_default(_REPORT, True)


def main() -> None:
  from synermedgen_jax.checkpoint.weights_folder import pinned
  from synermedgen_jax.config.modules import import_modules
  from synermedgen_jax.inference import predicting
  from synermedgen_jax.inference.prediction_runs import PredictSettings
  from synermedgen_jax.reporting.prediction_page import PredictionPage
  from synermedgen_jax.reporting.preview import write_preview
  from synermedgen_jax.slices.windows import Window
  from synermedgen_jax.training.objectives import OBJECTIVES

  import_modules(_MODULES.value)
  if _DEMO.value:
    _use_demo()
  stages = [name for name, o in OBJECTIVES.items() if 'flow' in o.terms]
  settings = PredictSettings(
    [pinned(workdir) for workdir in _WORKDIR.value],
    stages,
    sampling=_SAMPLING.apply,
    refuse_sampling=_SAMPLING.refuse,
    mr_window=Window(_LOW.value, _HIGH.value),
    seed=_SEED.value,
    batch_size=_BATCH.value,
    force=_FORCE.value,
    read=_READ.value,
    overwrite=_OVERWRITE.value,
    intervals=_INTERVALS.value,
  )
  with _hinted():
    sources = tuple(map(Modality.parse, _SOURCE.value))
    target = Modality.parse(_TARGET.value)
    region = Region.parse(_REGION.value) if _REGION.value else None
    requests = _requests(sources, target, region)
  page = PredictionPage(requests.page)
  steps = [write_preview] if _PREVIEW.value else []
  steps += [page.add] if _REPORT.value else []

  def after(written: predicting.Written) -> None:
    for step in steps:
      step(written)

  try:
    predicting.predict_all(requests, settings, after=after)
  finally:
    page.write(len(requests.requests))
  print(page.path if page.written else _OUTPUT.value)


if __name__ == '__main__':
  run_command(
    main,
    required=['workdir', 'input', 'source', 'target', 'output'],
    unless='demo',
  )
