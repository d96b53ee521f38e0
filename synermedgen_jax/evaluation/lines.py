"""The numbers by which trained arms are compared, one `Line` each."""

from __future__ import annotations

import dataclasses

from synermedgen_jax.core.modalities import ROUTES


@dataclasses.dataclass(frozen=True)
class Line:
  """One number that arms are compared by, as a percentage.

  Attributes:
    name: short, in results.
    title: for tables and plots.
    routes: whose SSIM is averaged; empty for a task.
    task: whose accuracy it is; '' for routes.
    definition: what the number is.
  """

  name: str
  title: str
  routes: tuple[str, ...] = ()
  task: str = ''
  definition: str = ''


_ALL = tuple(route.name for route in ROUTES)
_BRATS = tuple(route.name for route in ROUTES if route.cohort == 'brats')
_OTHERS = tuple(name for name in _ALL if name not in _BRATS)
_SSIM = (
  'SSIM x 100 within the body mask (2-D, Gaussian window of sigma 1.5, both '
  "images clipped to the target's window): mean over the slices of a subject, "
  'then over subjects, then over the '
)
LINES = (
  Line('ssim_22', 'SSIM, 22 routes', _ALL, '', f'{_SSIM}22 routes.'),
  Line(
    'ssim_10',
    'SSIM, 10 CT/CBCT/PET/MR routes',
    _OTHERS,
    '',
    f'{_SSIM}10 routes between CT, CBCT, PET and MR.',
  ),
  Line(
    'ssim_12',
    'SSIM, 12 BraTS routes',
    _BRATS,
    '',
    f'{_SSIM}12 routes between T1, T1CE, T2 and FLAIR.',
  ),
  Line(
    'cts',
    'CTS, accuracy',
    task='cts',
    definition='Share of questions of conditional target selection whose '
    'answer begins with the right letter, x 100; the wrong slices are '
    'neighbours of the right one, for every arm alike.',
  ),
  Line(
    'mi',
    'MI, accuracy',
    task='mi',
    definition='Share of panels given the right modality, x 100.',
  ),
  Line(
    'tia',
    'TIA, accuracy',
    task='tia',
    definition='Share of questions of transformation instruction alignment '
    'whose answer begins with the right letter, x 100.',
  ),
)
