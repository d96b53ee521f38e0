"""What training data consist of: tasks, routes, wordings, condition dropout."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from synermedgen_jax.tasks.example import Example, ExampleSource
from synermedgen_jax.tasks.pairs import Pool
from synermedgen_jax.tasks.prompts import PAPER, Prompts
from synermedgen_jax.tasks.registry import Task

if TYPE_CHECKING:
  from synermedgen_jax.slices.store import Case


@dataclasses.dataclass(frozen=True)
class Mixture:
  """The tasks, wordings and routes of a dataset.

  Attributes:
    tasks: name in `tasks.registry` -> share of the examples.
    prompts: wordings of the prompts.
    neighbours: K, largest distance in slices of a CTS negative from the true
      slice.
    slab: neighbouring slices that are synthesised together.
    subjects: share of the subjects of each dataset that are used, see
      `pairs.some_subjects`.
    routes: names of the routes of the pairs; empty = all with one source.
    max_sources: largest number of sources that synthesis draws for a pair.
    route_weights: (regular expression of a full route name, weight). A pair of
      a matching route is synthesised `weight` times as often as a pair of a
      route without a match; the first match applies. The route of a pair is
      the one before further sources are drawn.
    sources: task -> function from a seed to an endless dataset that replaces
      the task's own.
    files: the files that `sources` read, as in `config.bagel_files`.
    contents: names and sizes of these files, as `bagel_formats.contents`.
  """

  tasks: Mapping[str, float]
  prompts: Prompts = PAPER
  neighbours: int = 3
  slab: int = 1
  subjects: float = 1.0
  routes: Sequence[str] = ()
  max_sources: int = 1
  route_weights: Sequence[tuple[str, float]] = ()
  sources: Mapping[str, ExampleSource] = dataclasses.field(default_factory=dict)
  files: Mapping[str, str] = dataclasses.field(default_factory=dict)
  contents: Mapping[str, str] = dataclasses.field(default_factory=dict)

  def to_json(self) -> dict[str, Any]:
    """Everything that determines the examples, by its key of a config."""
    return {
      'tasks': dict(self.tasks),
      'prompts': f'fingerprint {self.prompts.fingerprint}',
      'neighbours': self.neighbours,
      'slab': self.slab,
      'subjects': self.subjects,
      'routes': list(self.routes),
      'max_sources': self.max_sources,
      'route_weights': list(self.route_weights),
      'bagel_files': dict(self.files),
      'bagel_contents': dict(self.contents),
    }

  def pool(self, cases: Sequence[Case]) -> Pool:
    """What the tasks draw from, with these cases."""
    return Pool(
      cases,
      prompts=self.prompts,
      neighbours=self.neighbours,
      slab=self.slab,
      routes=self.routes,
      max_sources=self.max_sources,
    )

  def weights_of(self, task: Task) -> Sequence[tuple[str, float]]:
    """The route weights of a task; questions ask about all routes alike."""
    return self.route_weights if task.kind == 'synthesis' else ()


@dataclasses.dataclass(frozen=True)
class Dropout:
  """Dropout of the conditions of synthesis, for classifier-free guidance.

  Attributes:
    text, vae, vit: probability of dropping a text, VAE or ViT span.
  """

  text: float = 0.0
  vae: float = 0.0
  vit: float = 0.0

  def draw(self, example: Example, rng: np.random.Generator) -> frozenset[int]:
    """Draws the indices of the spans to drop; never one with a loss."""
    rates = {'text': self.text, 'vae_image': self.vae, 'vit_image': self.vit}
    return frozenset(
      i
      for i, span in enumerate(example.spans)
      if not span.has_loss and rng.random() < rates[span.kind]
    )
