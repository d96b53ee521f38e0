"""Computes scores of adherence for the syntheses of a run."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from synermedgen_jax.baselines.registry import SYSTEMS
from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.modalities import Modality, Route
from synermedgen_jax.evaluation.adherence import ADHERENCE, Output, Slices
from synermedgen_jax.evaluation.modality_classifier import ModalityClassifier
from synermedgen_jax.evaluation.protocol import RouteCase
from synermedgen_jax.inference.answering import Answerer
from synermedgen_jax.inference.workdir import Trained
from synermedgen_jax.slices.store import SliceStore
from synermedgen_jax.tasks import mi
from synermedgen_jax.tasks.example import SliceRef

_PANELS = 4  # per question


class AdherenceError(UserError):
  """A score of adherence does not apply; one line that names it."""


@dataclasses.dataclass(frozen=True)
class Examiner:
  """Scores of adherence of one run.

  Attributes:
    trained: the run, or a system of the arena.
    synthesiser: synthesises with the sampling that is measured.
    store: the slice store.
    names: keys of `ADHERENCE`.
    seed: random seed of the noise, and of the questions of control.
    batch_size: questions per batch.
  """

  trained: Any
  synthesiser: Any
  store: SliceStore
  names: Sequence[str]
  seed: int = 0
  batch_size: int = 16

  def __post_init__(self):
    stage = self.trained.config['stage']
    for name in self.names:
      if ADHERENCE[name].needs_instruction and stage in SYSTEMS:
        raise AdherenceError(
          f'adherence {name}: {stage} reads no instruction; leave {name} out.'
        )
    if 'control' in self.names:
      _ = self._classifier  # refused before the first synthesis

  def examine(
    self, item: RouteCase, synthesis: Slices
  ) -> dict[str, dict[str, float]]:
    """Score -> metric -> value, of the scores that apply to the route.

    Args:
      item: a pair of a case and a route.
      synthesis: the synthesised slices in [-1, 1].
    """
    output = self.output(item, synthesis)
    return {
      name: ADHERENCE[name].function(output)
      for name in self.names
      if ADHERENCE[name].applies(item.route)
    }

  def output(self, item: RouteCase, synthesis: Slices) -> Output:
    """A synthesis of a pair with what the scores compare it with."""
    case, route = item.case, item.route
    return Output(
      route=route,
      synthesis=synthesis,
      indices=item.indices,
      mask=item.mask,
      source=self.store.read_volume(case.id, route.sources[0]),
      truth=self.store.read_volume(case.id, route.target),
      usable=case.usable,
      pixel=case.spacing[1:],
      withheld=getattr(self.synthesiser.sampling, 'withheld', ()),
      again=functools.partial(self._again, item),
      read=self._read if isinstance(self.trained, Trained) else None,
      classify=lambda images: self._classifier.classify(images),
    )

  def _again(
    self,
    item: RouteCase,
    *,
    instruction: Route | None = None,
    withheld: Sequence[str] = (),
  ) -> Slices:
    return self._without(tuple(withheld)).synthesise(
      item.route, item.sources, seed=self.seed, instruction=instruction
    )

  def _without(self, withheld: tuple[str, ...]) -> Any:
    """The synthesiser, with further conditions left out."""
    own = self.synthesiser
    if not withheld:
      return own
    if withheld not in self._synthesisers:
      sampling = dataclasses.replace(
        own.sampling, withheld=(*own.sampling.withheld, *withheld)
      )
      self._synthesisers[withheld] = dataclasses.replace(own, sampling=sampling)
    return self._synthesisers[withheld]

  @functools.cached_property
  def _synthesisers(self) -> dict[tuple[str, ...], Any]:
    return {}

  @functools.cached_property
  def _classifier(self) -> ModalityClassifier:
    return ModalityClassifier.train(self.store)

  def _read(self, images: Slices) -> list[Modality | None]:
    """The modality that the run's own answers to MI give each slice.

    The four panels of a question show slices of one output; the last ones are
    repeated if their number is not a multiple of four.
    """
    trained = self.trained
    rng = np.random.default_rng(self.seed)
    count = -(-len(images) // _PANELS) * _PANELS
    # Any modality will do: the model sees pixels alone.
    refs = [SliceRef('', Modality.CT, i % len(images)) for i in range(count)]
    questions = [
      mi.ask(refs[i : i + _PANELS], trained.prompts, rng)
      for i in range(0, count, _PANELS)
    ]
    answerer = Answerer(
      trained.model,
      trained.params,
      trained.tokenizer,
      trained.geometry,
      lambda ref: images[ref.index],
      batch_size=min(len(questions), self.batch_size),
    )
    named = {m.label: m for m in Modality}
    shown: list[Modality | None] = [None] * len(images)
    for question, answer in zip(
      questions, answerer.answer(questions), strict=True
    ):
      panels = [s.image.index for s in question.spans if s.image]
      labels = mi.parse_answer(answer, _PANELS)
      for index, label in zip(panels, labels, strict=True):
        shown[index] = named.get(label)
    return shown
