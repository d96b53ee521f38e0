"""The wordings of questions and instructions, as data.

A wording speaks of modalities and regions alone, never of a case, a file or a
slice number. Stage I and Stage II share one pool of descriptions per route:
synthesis is instructed with the words whose meaning TIA teaches.

`config.prompts` names one of `PROMPTS`. The paper draws the descriptions of a
route from a pool of its own, and its code's one example puts the target first
("Generate a T1-weighted MRI image from ..."); its full list of wordings is not
published. `paper` therefore has several wordings of every kind and both word
orders, in sentences such as a language model has read. `short` has one question
per task and the source first in every description: a model of a few million
parameters learns one word order within minutes, and two orders not at all.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from synermedgen_jax.core.modalities import ROUTES, Modality, Route

# Names of panels and options, in order.
LETTERS = 'ABCD'
# The texts after TIA's two images, as a panel's letter follows its panel.
TIA_SOURCE = 'first'
TIA_TARGET = 'second'


@dataclasses.dataclass(frozen=True)
class Prompts:
  """One set of wordings; `{region}`, `{source}` and `{target}` are labels.

  `{source}` of a route with several sources is a list in words, as in 'T1
  (MRI), T2 (MRI) and FLAIR (MRI)'.

  Attributes:
    descriptions: wordings for a route; inference uses the first.
    cts: asks for the target slice that goes with the source slice.
    mi: asks for the modality of every panel.
    tia: asks which description fits the two images.
    slice_questions: asks for a description of one slice, and names no fact.
    slice_answers: describes a slice, with the fields of `facts.Facts`. What
      stands in brackets is left out if a field in them has no value; brackets
      may be nested.
  """

  descriptions: tuple[str, ...]
  cts: tuple[str, ...]
  mi: tuple[str, ...]
  tia: tuple[str, ...]
  slice_questions: tuple[str, ...]
  slice_answers: tuple[str, ...]

  @property
  def fingerprint(self) -> str:
    """12 hexadecimal digits, equal for equal wordings of the paper's tasks.

    Those of descriptions of slices do not count, so that runs from before them
    resume.
    """
    wordings = dataclasses.asdict(self)
    del wordings['slice_questions'], wordings['slice_answers']
    texts = json.dumps(wordings)
    return hashlib.sha256(texts.encode()).hexdigest()[:12]

  def describe(self, route: Route) -> tuple[str, ...]:
    """The route's own pool of descriptions; no other route has one of them."""
    return tuple(fill(template, route) for template in self.descriptions)

  def canonical(self, route: Route) -> str:
    """The one description of a route that inference uses."""
    return fill(self.descriptions[0], route)

  def draw_description(self, route: Route, rng: np.random.Generator) -> str:
    """Draws one of the route's descriptions."""
    return str(rng.choice(self.describe(route)))

  def draw_cts(self, route: Route, rng: np.random.Generator) -> str:
    """A question of CTS."""
    return fill(draw(self.cts, rng), route)

  def draw_mi(self, rng: np.random.Generator) -> str:
    """A question of MI."""
    return draw(self.mi, rng)

  def draw_tia(self, rng: np.random.Generator) -> str:
    """A question of TIA."""
    return draw(self.tia, rng)


def fill(template: str, route: Route) -> str:
  """The template with the labels of a route; `{source}` lists all sources."""
  return template.format(
    region=route.region.label,
    source=_listed([source.label for source in route.sources]),
    target=route.target.label,
  )


def _listed(labels: Sequence[str]) -> str:
  """['T1', 'T2', 'FLAIR'] -> 'T1, T2 and FLAIR'."""
  *others, last = labels
  return f'{", ".join(others)} and {last}' if others else last


def draw(wordings: Sequence[str], rng: np.random.Generator) -> str:
  """Draws one of the wordings; a single one uses no random number."""
  return wordings[0] if len(wordings) == 1 else str(rng.choice(wordings))


SHORT = Prompts(
  descriptions=(
    'convert {region} {source} to {target}',
    'translate {region} {source} to {target}',
    'map {region} {source} to {target}',
    'from {region} {source} to {target}',
    'turn {region} {source} into {target}',
    'change {region} {source} to {target}',
  ),
  cts=('Which {target} slice matches this {source} slice?',),
  mi=('Name the modality of each panel.',),
  tia=('Which task turns the first image into the second?',),
  slice_questions=('Describe this slice.',),
  slice_answers=(
    '{plane} {modality} of the {region}[, {level}]'
    '[; [{size} ]{lesion}[ on {side}]]',
  ),
)

PAPER = Prompts(
  descriptions=(
    'Generate the {region} {target} image from the input {source} image, '
    'preserving the anatomy.',
    'Synthesize the {target} slice that corresponds to this {region} {source} '
    'slice.',
    'Produce {region} {target} from {source}, keeping every structure in '
    'place.',
    'Predict the {target} image of this {region} from its {source} image.',
    'Convert this {region} {source} slice to {target}.',
    'Translate the {region} image from {source} to {target} without changing '
    'the anatomy.',
    'Given this {source} slice of the {region}, generate the matching '
    '{target} slice.',
    'Turn this {source} image of the {region} into {target}.',
  ),
  cts=(
    'Which {target} slice matches this {source} slice?',
    'Which of these {target} slices shows the same anatomy as the {source} '
    'slice above?',
    'The image above is {source}. Select the {target} slice of the same place '
    'in the same patient.',
    'Select the {target} slice that a synthesis from this {source} slice '
    'should produce.',
  ),
  mi=(
    'Name the modality of each panel.',
    'Which imaging modality does each panel show?',
    'Identify the modality of every panel.',
    'State for each of the panels with which modality it was acquired.',
  ),
  tia=(
    'Which task turns the first image into the second?',
    'Which instruction describes the change from the first image to the '
    'second?',
    'Select the instruction that produces the second image from the first.',
    'The second image was synthesized from the first. Which instruction was '
    'given?',
  ),
  slice_questions=(
    'Describe this slice.',
    'What does this slice show?',
    'Describe this image in words.',
    'State in words what this image is and what can be seen in it.',
  ),
  slice_answers=(
    '{plane} {modality} of the {region}[, {level}]'
    '[; [{size} ]{lesion}[ on {side}]]',
    '{modality}, {plane} plane, {region}[, {level}][, [{size} ]{lesion}'
    '[ on {side}]]',
    '{plane} slice, {region}, {modality}[, {level}].[ It shows [a {size} ]'
    '{lesion}[ on {side}].]',
    '[{level} of the ]{region}, {plane} {modality}[, {lesion}[, {size}]'
    '[, on {side}]]',
  ),
)

PROMPTS: Mapping[str, Prompts] = {'paper': PAPER, 'short': SHORT}


def mi_answer(modalities: Sequence[Modality]) -> str:
  """[CT, PET, T1CE, MR] -> 'A CT B PET C T1CE (MRI) D MRI'."""
  pairs = zip(LETTERS, modalities, strict=False)
  return ' '.join(f'{letter} {modality.label}' for letter, modality in pairs)


def every_text(prompts: Prompts) -> Iterator[str]:
  """Every wording of every route, panel and option: a tokenizer's corpus."""
  yield from LETTERS
  yield from prompts.mi
  yield TIA_SOURCE
  yield TIA_TARGET
  yield from prompts.tia
  for modality in [m for m in Modality if any(m == r.source for r in ROUTES)]:
    yield mi_answer([modality] * len(LETTERS))
  for route in ROUTES:
    for template in prompts.cts:
      yield fill(template, route)
    yield from prompts.describe(route)
