"""Scores of subjects: worst cases, strips of dots, a CSV file."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from synermedgen_jax.core.modalities import route_named
from synermedgen_jax.evaluation.routes import BASELINES
from synermedgen_jax.evaluation.subjects import Subjects
from synermedgen_jax.reporting.pictures import route_title
from synermedgen_jax.reporting.results import Panel


@dataclasses.dataclass(frozen=True)
class Score:
  """The scores of a subject on a route, in the body mask.

  Attributes:
    route: name of the route.
    subject: name of the subject.
    dataset: its dataset.
    values: metric -> value of the model.
    baselines: baseline -> metric -> value.
  """

  route: str
  subject: str
  dataset: str
  values: Mapping[str, float]
  baselines: Mapping[str, Mapping[str, float]]

  @property
  def ssim(self) -> float:
    return self.values['ssim']

  @property
  def title(self) -> str:
    """Title of the route."""
    return route_title(route_named(self.route))


def scores_of(subjects: Subjects) -> list[Score]:
  """All scores, lowest SSIM first."""
  scores = [
    Score(
      route,
      subject,
      subjects.subjects[subject],
      {name: v for name, v in entry.items() if name != 'baselines'},
      entry['baselines'],
    )
    for route, entries in subjects.synthesis.items()
    for subject, entry in entries.items()
  ]
  return sorted(scores, key=lambda s: (s.ssim, s.route, s.subject))


def csv_text(scores: Sequence[Score]) -> str:
  """Scores as CSV: a row per route and subject, a column per number.

  Numbers of a baseline stand in columns such as 'copy_source/ssim'. A score
  that a route does not have is empty.
  """
  rows = [
    {'route': s.route, 'subject': s.subject, 'dataset': s.dataset}
    | s.values
    | {
      f'{baseline}/{metric}': value
      for baseline, values in s.baselines.items()
      for metric, value in values.items()
    }
    for s in scores
  ]
  columns = dict.fromkeys(name for row in rows for name in row)
  # Numbers of the model before those of baselines.
  ordered = sorted(columns, key=lambda name: name.split('/')[0] in BASELINES)
  file = io.StringIO()
  writer = csv.DictWriter(file, ordered, restval='', lineterminator='\n')
  writer.writeheader()
  writer.writerows(rows)
  return file.getvalue()


def panel_ssim(panel: Panel, scores: Sequence[Score]) -> float | None:
  """SSIM of the subject of a panel; None if its name is not unique."""
  found = [
    score.ssim
    for score in scores
    if score.route == panel.route.name
    and score.subject in (panel.subject, f'{score.dataset}.{panel.subject}')
  ]
  return found[0] if len(found) == 1 else None


@dataclasses.dataclass(frozen=True)
class Strip:
  """The subjects of a route on a line; positions are in percent of its width.

  Attributes:
    title: title of the route.
    dots: position and description of every subject, the lowest first.
    mean: position of the mean.
    interval: positions of its interval, if there is one.
    baselines: baseline -> position.
    lowest: SSIM of the lowest subject.
  """

  title: str
  dots: Sequence[tuple[float, str]]
  mean: float
  interval: tuple[float, float] | None
  baselines: Mapping[str, float]
  lowest: float


@dataclasses.dataclass(frozen=True)
class Strips:
  """A strip per route with a common axis.

  Attributes:
    ticks: position in percent and text.
    rows: the strips; the route with the lowest subject first.
  """

  ticks: Sequence[tuple[float, str]]
  rows: Sequence[Strip]


def strips_of(
  scores: Sequence[Score],
  synthesis: Mapping[str, Mapping[str, Any]],
) -> Strips:
  """Places subjects, means and baselines on an axis that ends at 1.

  Args:
    scores: result of `scores_of`.
    synthesis: `synthesis` of metrics.json; routes without it are left out.
  """
  shown = [score for score in scores if score.route in synthesis]
  ssims = [score.ssim for score in shown]
  for route in synthesis.values():
    ssims += [b['ssim'] for b in route['baselines'].values()]
  low = min(0.0, np.floor(min(ssims, default=0) * 5) / 5)

  def place(value: float) -> float:
    return round(100 * (value - low) / (1 - low), 2)

  rows = []
  for name in dict.fromkeys(score.route for score in shown):
    own = [score for score in shown if score.route == name]
    route = synthesis[name]
    ends = route.get('interval')
    rows.append(
      Strip(
        own[0].title,
        [(place(s.ssim), f'{s.subject}: SSIM {s.ssim:.3f}') for s in own],
        place(route['ssim']),
        ends and (place(ends[0]), place(ends[1])),
        {b: place(v['ssim']) for b, v in route['baselines'].items()},
        own[0].ssim,
      )
    )
  ticks = np.arange(low, 1.01, 0.2)
  return Strips([(place(t), f'{t:.1f}'.replace('-', '−')) for t in ticks], rows)
