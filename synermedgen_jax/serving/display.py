"""Results as the pages show them: volumes for the viewer, tables, pictures."""

from __future__ import annotations

import base64
import dataclasses
import io
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from synermedgen_jax.core.modalities import Modality
from synermedgen_jax.reporting.prediction_page import scaled_bytes
from synermedgen_jax.reporting.viewer import Case, view_of
from synermedgen_jax.serving.model import Asked
from synermedgen_jax.slices import grids
from synermedgen_jax.slices.volumes import Volume, VolumeError, same_grid
from synermedgen_jax.slices.windows import Window, choose_window
from synermedgen_jax.tasks.scoring import read_letter

_CTS = 'cts'
_SIDE = 192  # pixels of a slice in a picture


def compared(
  case: Case,
  synthesis: Volume,
  truth: Volume,
  modality: Modality,
  window: Window,
) -> tuple[Case, list[str]]:
  """A case with the true volume, and lines about both.

  Args:
    case: a case of `shown_case`.
    synthesis: the synthesis, in its unit.
    truth: the true volume of the target's modality, on any grid.
    modality: the target.
    window: values of black and white in the synthesis.

  Raises:
    VolumeError: the volumes do not overlap.
  """
  lines = []
  # A volume without a unit, such as MR, is shown from its own black to white.
  own = window
  if modality.unit == 'a.u.':
    own = choose_window(modality, truth.data)
  data = truth.data
  if not same_grid(synthesis, truth):
    data = grids.resample(truth, grids.Grid.of(synthesis), fill=np.nan)
    lines.append('The true volume is resampled onto the grid of the source.')
  inside = np.isfinite(data)
  body = case.mask.transpose(2, 1, 0) & inside
  if not body.any():
    raise VolumeError(
      'The true volume does not overlap the body in the source; choose one of '
      'the same subject in the same position.'
    )
  data = window.denormalise(own.normalise(np.where(inside, data, own.low)))
  error = float(np.abs(synthesis.data - data)[body].mean())
  unit = modality.unit
  scale = ', each volume in its own window' if unit == 'a.u.' else ''
  lines.append(
    f'Mean absolute difference {error:.4g} {unit}: mean of |synthesis − truth| '
    f'over the voxels of the body in the source, both within {window.low:g} to '
    f'{window.high:g} {unit}{scale}.'
  )
  view = view_of(
    'truth',
    modality,
    scaled_bytes(Volume(data, synthesis.affine), window),
    (window.low, window.high),
  )
  views = [v for v in case.views if v.role != 'truth']
  return dataclasses.replace(case, views=[*views, view]), lines


def shown_question(asked: Asked) -> dict[str, Any] | None:
  """The middle question of CTS as five pictures; None if none was asked.

  Returns:
    'panels', a list with 'picture' (a data address), 'title', 'right' and
    'given' (whether it is the right answer, and the model's), and 'words', the
    result.
  """
  answers = asked.answers.get(_CTS)
  if not answers:
    return None
  place = len(answers.examples) // 2
  example, given = answers.examples[place], answers.given[place]
  (letter,) = read_letter(given)
  images = [span.image for span in example.spans if span.image is not None]
  labels = [span.text for span in example.spans if span.is_label]
  panels = []
  for image, name in zip(images, ['', *labels], strict=True):
    panels.append(
      {
        'picture': _picture(asked.slices[image.modality][image.index]),
        'title': name or f'source: {image.modality.label}',
        'right': name == example.answer,
        'given': bool(name) and name == letter,
      }
    )
  right = 'right' if letter == example.answer else 'wrong'
  return {
    'panels': panels,
    'words': f'The model answers {letter or given!s}, which is {right}.',
  }


def _picture(image: Float[np.ndarray, 'h w']) -> str:
  """A slice in [-1, 1] as a PNG in an address."""
  pixels = np.rint((image.clip(-1, 1) + 1) * 127.5).astype(np.uint8)
  picture = Image.fromarray(pixels)
  scale = max(1, _SIDE // max(pixels.shape))
  picture = picture.resize(
    (picture.width * scale, picture.height * scale), Image.Resampling.NEAREST
  )
  file = io.BytesIO()
  picture.save(file, 'PNG')
  return f'data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}'
