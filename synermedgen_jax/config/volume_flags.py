"""Flags that name volumes on disk and how they become slices."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from absl import flags

from synermedgen_jax.core.choices import DATASETS, FRAMES, PLANES, SHIFTS
from synermedgen_jax.core.modalities import Region

# Flags of the slices themselves, `slices/framing.SliceSpec`.
OF_SLICES = ('canvas', 'plane', 'frame', 'windows')

flags.disclaim_key_flags()  # they belong to the command that defines them


@dataclasses.dataclass(frozen=True)
class VolumeOptions:
  """Values of the flags; `cases.py` reads them.

  Attributes:
    dataset: layouts of the input; None = not given.
    root: a path for each layout.
    name: name of the dataset; None = that of the root.
    region: body region; None = not given.
    modules: modules to import.
    plane, frame, canvas, windows: settings of the slices, as text.
    reference: modalities in order of preference; None = not given.
    modalities: modalities that every subject must have.
    seed: random seed of phantoms and splits.
    subjects: phantom subjects per cohort.
    shift: scanners of a phantom holdout; None = phantoms to train on.
    workers: number of processes.
    most_offset: largest shift between the volumes of a subject in mm.
    check_units: whether values have to be in the unit of their modality.
    register: 'none' or 'rigid'.
  """

  dataset: Sequence[str] | None
  root: Sequence[str]
  name: str | None
  region: str | None
  modules: Sequence[str]
  plane: str
  frame: str
  canvas: str
  reference: Sequence[str] | None
  windows: str
  modalities: Sequence[str]
  seed: int
  subjects: int
  shift: str | None
  workers: int
  most_offset: float
  check_units: bool
  register: str


def define_volume_flags() -> Callable[[], VolumeOptions]:
  """Defines the flags, and returns the function that reads their values."""
  holders = _input_flags() | _slice_flags()
  return lambda: VolumeOptions(**{k: h.value for k, h in holders.items()})


def define_reader_flag() -> flags.FlagHolder[str]:
  """Defines --reader, for commands that inspect volumes."""
  return flags.DEFINE_string(
    'reader',
    '',
    'Workdir of a trained run, or its weights folder, whose model reads which '
    'modality each volume shows. Another family than stated (CT, MR, PET) is a '
    'problem, another modality of the family a note. Default: not read.',
  )


def _input_flags() -> dict[str, flags.FlagHolder]:
  return {
    'root': flags.DEFINE_list(
      'root',
      None,
      'Folder of the volumes of each --dataset, comma-separated; for csv, the '
      'table.',
      short_name='i',
    ),
    'dataset': flags.DEFINE_list(
      'dataset',
      None,
      f'Layouts of the input, comma-separated: {", ".join(DATASETS)}, or a '
      'layout that one of --modules registers.',
    ),
    'region': flags.DEFINE_string(
      'region',
      None,
      f'Body region of all subjects: {", ".join(Region)}, or a region that one '
      'of --modules registers.',
    ),
    'name': flags.DEFINE_string(
      'name',
      None,
      'Name of the dataset; by default the name of --root. Public datasets '
      'have their own names.',
    ),
    'modules': flags.DEFINE_list(
      'modules',
      [],
      'Python modules to import first, which register datasets, modalities or '
      'regions.',
    ),
    'seed': flags.DEFINE_integer(
      'seed', 0, 'Random seed of phantoms and splits.'
    ),
    'subjects': flags.DEFINE_integer(
      'subjects', 30, 'Phantom subjects per cohort.', lower_bound=1
    ),
    'shift': flags.DEFINE_enum(
      'shift',
      None,
      SHIFTS,
      'Scanners of a phantom holdout (docs/holdout.md); "none" has those of '
      'the training set. Its subjects are in no set without --shift. To '
      'prepare them, add --holdout.',
    ),
    'workers': flags.DEFINE_integer(
      'workers', 2, 'Number of processes.', lower_bound=1
    ),
  }


def _slice_flags() -> dict[str, flags.FlagHolder]:
  return {
    'plane': flags.DEFINE_enum(
      'plane', 'axial', PLANES, 'Plane of the slices.'
    ),
    'frame': flags.DEFINE_enum(
      'frame',
      'volume',
      FRAMES,
      'Content that fills the canvas: the field of view of the volume, or the '
      'body.',
    ),
    'canvas': flags.DEFINE_string(
      'canvas',
      '256',
      'Height and width of a slice in pixels, such as 400x256; one number for '
      'a square.',
    ),
    'reference': flags.DEFINE_list(
      'reference',
      None,
      'Modalities in order of preference: the first that a subject has defines '
      'the grid onto which its other volumes are resampled. By default, the '
      'volumes of a subject must share one grid, except in phantoms and public '
      'datasets.',
    ),
    'windows': flags.DEFINE_string(
      'windows',
      '',
      'Intensity windows that replace the defaults, such as '
      'ct:-1000:2000,pet:0:20 (HU, SUV). By default, the window of an MR ends '
      'at its 99.5th percentile.',
    ),
    'modalities': flags.DEFINE_list(
      'modalities', [], 'Modalities that every subject must have.'
    ),
    'most_offset': flags.DEFINE_float(
      'most_offset',
      6.0,
      'Largest estimated shift between the volumes of a subject, in mm. '
      'Subjects beyond it are skipped; 0 accepts all.',
      lower_bound=0,
    ),
    'check_units': flags.DEFINE_bool(
      'check_units',
      True,
      'Refuse volumes whose values are not in HU (CT, CBCT) or SUV (PET), or '
      'are not those of an MR.',
    ),
    'register': flags.DEFINE_enum(
      'register',
      'none',
      ['none', 'rigid'],
      'Correction of volumes that are off by more than --most_offset: rigid '
      'registration to the reference. The manifest records the matrix.',
    ),
  }
