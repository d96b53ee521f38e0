"""All wordings: short, so that even a tiny model reads them.

A wording speaks of modalities and regions alone, never of a case, a file or a
slice number. Stage I and stage II share one pool of descriptions per route:
the words whose meaning TIA teaches are the words that synthesis is given.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from synermedgen_jax.core.modalities import ROUTES, Modality, Route

# Names of panels and options, in order.
LETTERS = 'ABCD'

# The first is the canonical one, which inference uses. The source comes first
# in each: a tiny model learns one order within a demo's time, two orders not.
DESCRIPTIONS = (
  'convert {region} {source} to {target}',
  'translate {region} {source} to {target}',
  'map {region} {source} to {target}',
  'from {region} {source} to {target}',
  'turn {region} {source} into {target}',
  'change {region} {source} to {target}',
)
CTS_QUESTION = 'Which {target} slice matches this {source} slice?'
MI_QUESTION = 'Name the modality of each panel.'
# Follow the two images, as a panel's letter follows its panel.
TIA_SOURCE = 'first'
TIA_TARGET = 'second'
TIA_QUESTION = 'Which task turns the first image into the second?'


def _format(template: str, route: Route) -> str:
  return template.format(
    region=route.region.label,
    source=route.source.label,
    target=route.target.label,
  )


def descriptions(route: Route) -> tuple[str, ...]:
  """The route's own pool of wordings; no other route has one of them."""
  return tuple(_format(template, route) for template in DESCRIPTIONS)


def canonical_description(route: Route) -> str:
  """The one wording of a route that inference uses."""
  return _format(DESCRIPTIONS[0], route)


def cts_question(route: Route) -> str:
  """Asks for the target slice that goes with the source slice."""
  return _format(CTS_QUESTION, route)


def mi_answer(modalities: Sequence[Modality]) -> str:
  """[CT, PET, T1CE, MR] -> 'A CT B PET C T1CE (MRI) D MRI'."""
  pairs = zip(LETTERS, modalities, strict=False)
  return ' '.join(f'{letter} {modality.label}' for letter, modality in pairs)


def every_text() -> Iterator[str]:
  """Every wording of every route, panel and option: a tokenizer's corpus."""
  yield from LETTERS
  yield MI_QUESTION
  yield TIA_SOURCE
  yield TIA_TARGET
  yield TIA_QUESTION
  for modality in [m for m in Modality if any(m == r.source for r in ROUTES)]:
    yield mi_answer([modality] * len(LETTERS))
  for route in ROUTES:
    yield cts_question(route)
    yield from descriptions(route)
