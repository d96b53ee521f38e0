"""What the pages ask of a model: read a volume, predict another, answer.

`ServedModel` is a loaded run; tests put a quick one in its place.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Float

from synermedgen_jax.core.modalities import (
  Modality,
  Route,
  all_routes,
  routes_named,
)
from synermedgen_jax.inference.asking import Answers, ask_about_pair
from synermedgen_jax.inference.predicting import Written, predict_request
from synermedgen_jax.inference.prediction_inputs import Request
from synermedgen_jax.inference.prediction_runs import Runs
from synermedgen_jax.inference.reading import Reading
from synermedgen_jax.inference.translation import cut
from synermedgen_jax.inference.workdir import Trained, WorkdirError
from synermedgen_jax.slices import grids
from synermedgen_jax.slices.volumes import Volume


@dataclasses.dataclass(frozen=True)
class Asked:
  """Answers about two volumes.

  Attributes:
    answers: task -> its answers.
    slices: modality -> the slices that were shown, in [-1, 1].
  """

  answers: Mapping[str, Answers]
  slices: Mapping[Modality, Float[np.ndarray, 'z h w']]


class Model(Protocol):
  """What the pages need; one thread calls it.

  Attributes:
    title: the run, as the pages name it.
    routes: routes that can be selected, with one source each.
    answers: whether it reads volumes and answers questions.
  """

  title: str
  routes: Sequence[Route]
  answers: bool

  def count(self, volume: Volume) -> int:
    """Slices of which `predict` reports progress."""

  def read(self, volume: Volume, modality: Modality) -> Reading | None:
    """What the model sees in a volume; None = it does not read."""

  def predict(
    self,
    request: Request,
    sources: Mapping[Modality, Volume],
    names: Mapping[Modality, Path],
    progress: Callable[[int], object],
  ) -> Written:
    """Predicts and writes a volume; see `predicting.predict_request`."""

  def ask(self, volumes: Mapping[Modality, Volume], route: Route) -> Asked:
    """Asks all tasks about the source and the target of a route."""


@dataclasses.dataclass(frozen=True)
class ServedModel:
  """Loaded runs; see `Model`.

  Attributes:
    runs: the runs, whose settings accept what the pages have let pass.
    routes: routes that all of them synthesise from one source.
  """

  runs: Runs
  routes: tuple[Route, ...]

  @classmethod
  def load(cls, runs: Runs) -> ServedModel:
    """Loads the runs.

    Raises:
      WorkdirError: a run does not synthesise, or they share no route from one
        source.
      CheckpointError: a run has no complete checkpoint.
    """
    offered = all_routes()
    for workdir in runs.settings.workdirs:
      names = runs.routes(workdir)
      if names is not None:
        offered = [route for route in routes_named(names) if route in offered]
    if not offered:
      raise WorkdirError(
        f'{", ".join(runs.settings.workdirs)}: no route with one source was '
        'trained; the app translates from one volume.'
      )
    _ = runs.predictor  # loads them
    return cls(runs, tuple(offered))

  @property
  def title(self) -> str:
    return ', '.join(self.runs.settings.workdirs)

  @property
  def answers(self) -> bool:
    predictor = self.runs.predictor
    return predictor.read and isinstance(predictor.runs[0], Trained)

  def count(self, volume: Volume) -> int:
    """Slices of all runs."""
    return sum(
      grids.slice_grid(volume, run.slices.canvas, run.slices.plane).shape[2]
      for run in self.runs.predictor.runs
    )

  def read(self, volume: Volume, modality: Modality) -> Reading | None:
    """As of `Predictor.read_sources`."""
    predictor = dataclasses.replace(self.runs.predictor, force=True)
    readings, _ = predictor.read_sources({modality: volume}, {modality: ''})
    return readings.get(modality)

  def predict(
    self,
    request: Request,
    sources: Mapping[Modality, Volume],
    names: Mapping[Modality, Path],
    progress: Callable[[int], object],
  ) -> Written:
    """As `predicting.predict_request`."""
    return predict_request(
      request, sources, self.runs, names=names, progress=progress
    )

  def ask(self, volumes: Mapping[Modality, Volume], route: Route) -> Asked:
    """Cuts both volumes on the grid of the first, and asks."""
    predictor = self.runs.predictor
    run = predictor.runs[0]
    _, slices = cut(run, volumes)
    answers = ask_about_pair(
      run,
      route,
      slices[route.source],
      slices[route.target],
      seed=predictor.seed,
    )
    return Asked(answers, slices)
