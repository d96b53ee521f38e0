"""The weights and the phantom that come with the package, for a first try.

The weights are those of `launch/demo.sh` (weights/demo/README.md). The phantom
is a head that they were not trained on.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.modalities import Modality, Region

REGION = Region.BRAIN


class DemoError(UserError):
  """The package was installed without its weights; one line."""


def weights() -> Path:
  """The weights folder, of the installed package or of the repository.

  Raises:
    DemoError: there is none.
  """
  package = Path(str(resources.files('synermedgen_jax')))
  for folder in (package / 'demo', package.parent / 'weights' / 'demo'):
    if folder.is_dir():
      return folder
  raise DemoError(
    f'{package}: has no weights of the demo; install the package from its '
    'repository, or train with launch/demo.sh.'
  )


def volumes() -> Mapping[Modality, Path]:
  """An MR and a CT of one phantom, on one grid."""
  folder = Path(str(resources.files('synermedgen_jax'))) / 'phantoms'
  return {
    Modality.MR: folder / 'example' / 'mr.nii.gz',
    Modality.CT: folder / 'example' / 'ct.nii.gz',
  }
