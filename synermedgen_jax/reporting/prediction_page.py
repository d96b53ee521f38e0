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
from synermedgen_jax.inference.sidecar import NOTICE
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

  def add(self, written: Written) -> None:
    """Adds a prediction; beyond 40 MB, without its volumes."""
    name = written.request.name
    shown = self._contents.add(shown_case(written, name), _BUDGET)
    self._predictions.append(
      {
        'name': name,
        'output': written.request.output.name,
        'route': route_title(written.request.route),
        'shown': shown,
        **described(written.prediction.findings),
      }
    )

  def write(self) -> None:
    """Writes the page, if a prediction was added."""
    if self._predictions:
      page = render(
        'predictions.html',
        notice=NOTICE,
        predictions=self._predictions,
        viewer=self._contents.html() if len(self._contents) else None,
      )
      files.write_text(self.path, page)


def shown_case(written: Written, title: str) -> Case:
  """Source and synthesis for the viewer, with the body mask of the source."""
  route, prediction = written.request.route, written.prediction
  source = written.sources[route.source]
  window = choose_window(route.source, source.data, FIXED_WINDOWS)
  views = [
    view_of(
      'source',
      route.source,
      scaled_bytes(source, window),
      (window.low, window.high),
    ),
    view_of(
      'synthesis',
      route.target,
      scaled_bytes(prediction.volume, prediction.window),
      (prediction.window.low, prediction.window.high),
    ),
  ]
  mask = body_mask(route.source, grids.to_slices(source.data), window)
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
