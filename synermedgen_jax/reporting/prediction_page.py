"""A page of predictions: volumes in the viewer, what was read, warnings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from synermedgen_jax.core import files
from synermedgen_jax.inference.asking import Answers
from synermedgen_jax.inference.predicting import Written
from synermedgen_jax.inference.prediction import Findings
from synermedgen_jax.inference.sidecar import NOTICE, add_file
from synermedgen_jax.reporting.pictures import route_title
from synermedgen_jax.reporting.rendering import render
from synermedgen_jax.reporting.viewer import Case, Contents, view_of
from synermedgen_jax.slices import grids
from synermedgen_jax.slices.volumes import Volume
from synermedgen_jax.slices.windows import (
  FIXED_WINDOWS,
  Window,
  body_mask,
  choose_window,
)
from synermedgen_jax.tasks.registry import TASKS

_BUDGET = 40e6  # characters of volumes in a page


@dataclasses.dataclass
class PredictionPage:
  """Collects predictions, for one page about all of them.

  Attributes:
    path: the HTML file to write.
  """

  path: Path

  def __post_init__(self):
    self._contents = Contents()
    self._predictions: list[dict[str, Any]] = []
    self._outputs: list[Path] = []

  @property
  def written(self) -> bool:
    """Whether `write` writes a page."""
    return bool(self._predictions)

  def add(self, written: Written) -> None:
    """Adds a prediction; beyond 40 MB, without its volumes."""
    name = written.request.name
    shown = self._contents.add(shown_case(written, name), _BUDGET)
    self._outputs.append(written.request.output)
    self._predictions.append(
      {
        'name': name,
        'output': written.request.output.name,
        'route': route_title(written.request.route),
        'shown': shown,
        **described(written.prediction.findings),
      }
    )

  def write(self, requested: int) -> None:
    """Writes the page, if a prediction was added.

    Args:
      requested: number of volumes that were to be predicted; the page states
        how many of them it does not show.
    """
    if self.written:
      page = render(
        'predictions.html',
        notice=NOTICE,
        predictions=self._predictions,
        others=requested - len(self._predictions),
        viewer=self._contents.html() if len(self._contents) else None,
      )
      files.write_text(self.path, page)
      for output in self._outputs:
        add_file(output, self.path)


def shown_case(written: Written, title: str) -> Case:
  """Sources and synthesis for the viewer, with the body mask of the first."""
  route, prediction = written.request.route, written.prediction
  windows = {
    m: choose_window(m, volume.data, FIXED_WINDOWS)
    for m, volume in written.sources.items()
  }
  first, source = next(iter(written.sources.items()))
  views = [
    *(
      view_of(
        'source',
        m,
        scaled_bytes(volume, windows[m]),
        (windows[m].low, windows[m].high),
      )
      for m, volume in written.sources.items()
    ),
    view_of(
      'synthesis',
      route.target,
      scaled_bytes(prediction.volume, prediction.window),
      (prediction.window.low, prediction.window.high),
    ),
  ]
  mask = body_mask(first, grids.to_slices(source.data), windows[first])
  return Case(route_title(route), title, source.affine, views, mask)


def scaled_bytes(volume: Volume, window: Window) -> UInt8[np.ndarray, 'z h w']:
  """Values from black to white as 0 to 255."""
  scaled = (window.normalise(grids.to_slices(volume.data)) + 1) * 127.5
  return np.rint(scaled.clip(0, 255)).astype(np.uint8)


def described(findings: Findings) -> dict[str, Any]:
  """The findings as texts.

  Returns:
    'warnings' and 'lines', lists of texts, and 'answers', rows as of
    `answer_rows`.
  """
  lines = [
    f'The source is read as {reading}; it was stated as {modality.label}.'
    for modality, reading in findings.sources.items()
  ]
  if findings.output:
    lines.append(f'The synthesis is read as {findings.output}.')
  if findings.offset is None:
    lines.append('The shift between source and synthesis is not estimated.')
  elif findings.offset.distance == 0:
    lines.append('No shift between source and synthesis is significant.')
  else:
    lines.append(
      f'Shift of the synthesis from the source, estimated by mutual '
      f'information: {findings.offset}.'
    )
  return {
    'warnings': list(findings.warnings),
    'lines': lines,
    'answers': answer_rows(findings.answers),
  }


def answer_rows(answers: Mapping[str, Answers]) -> list[dict[str, str]]:
  """One row per task: title, right answers, accuracy, chance."""
  return [
    {
      'task': f'{name.upper()}: {TASKS[name].title}',
      'definition': TASKS[name].definition,
      'right': f'{a.right} of {a.asked}',
      'accuracy': f'{a.accuracy:.2f}',
      'chance': f'{a.chance:.2f}',
    }
    for name, a in answers.items()
  ]
