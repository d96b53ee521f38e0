"""The facts that a description of a slice states: in words, and read back.

`facts_of` derives them from a case, `write` puts them into words, `read` finds
them in any words. A fact that a slice does not have, or that is ambiguous, is
''.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from synermedgen_jax.core.modalities import Modality, Region
from synermedgen_jax.slices.grids import PLANES

if TYPE_CHECKING:
  from synermedgen_jax.slices.lesions import SliceLesions
  from synermedgen_jax.slices.store import Case

LESION_MM2 = 120.0  # smallest area of a lesion
NONE_MM2 = 2.0  # largest area in a slice without lesions
CONTRAST = 0.12  # smallest difference of a lesion from its surroundings
ONE_SIDE = 0.9  # smallest share of the lesion's area on its side
OFF_MIDLINE = 12.0  # smallest distance from the midline, mm
# Limits of small and large: diameters of a circle of the same area, mm.
SMALL, LARGE = 26.0, 40.0
SIDES = ('right', 'left', 'both')
SIZES = ('small', 'medium', 'large')

# Direction of increasing slices -> thirds of a case's usable slices, in order.
# Slices to the left have none: a picture does not show its side.
_LEVELS = {
  'S': ('lower third', 'middle third', 'upper third'),
  'P': ('front third', 'middle third', 'back third'),
}
# Values in the words of a template, where they differ.
_WORDS = {
  'lesion': {'yes': 'lesion', 'no': 'no lesion'},
  'side': {'right': 'the right', 'left': 'the left', 'both': 'both sides'},
}


@dataclasses.dataclass(frozen=True)
class Facts:
  """What a description says about a slice; '' = nothing.

  Attributes:
    modality, region: labels of both.
    plane: 'axial', 'coronal' or 'sagittal'.
    level: third of the case's usable slices.
    lesion: 'yes' or 'no'.
    side: the patient's 'right' or 'left', or 'both'.
    size: 'small', 'medium' or 'large', of all lesions in the slice.
  """

  modality: str
  region: str
  plane: str
  level: str = ''
  lesion: str = ''
  side: str = ''
  size: str = ''


NAMES = tuple(field.name for field in dataclasses.fields(Facts))


def facts_of(case: Case, modality: Modality, index: int) -> Facts:
  """The facts of one slice.

  There is a lesion if the mask has at least 120 mm2 of it, in a piece above 30
  mm2, and the modality shows it: it differs from its surroundings by 0.12 of
  [-1, 1]. There is none up to 2 mm2. Everything between is ambiguous, and so is
  a lesion that the modality does not show.

  Args:
    case: the case of the slice.
    modality: one of its modalities.
    index: one of its usable slices.
  """
  facts = Facts(
    modality.label,
    case.region.label,
    case.plane,
    level_of(case.plane, case.usable, index),
  )
  if case.lesions is None:
    return facts
  lesions = case.lesions.get(index)
  if lesions is None or lesions.area <= NONE_MM2:
    return dataclasses.replace(facts, lesion='no')
  shown = abs(lesions.contrast.get(modality, 0.0)) >= CONTRAST
  if lesions.area < LESION_MM2 or not lesions.count or not shown:
    return facts
  return dataclasses.replace(
    facts,
    lesion='yes',
    # A sagittal picture does not show its side.
    side='' if case.plane == 'sagittal' else side_of(lesions),
    size=size_of(lesions.area),
  )


def level_of(plane: str, usable: range, index: int) -> str:
  """The third of the usable slices in which the middle of a slice lies.

  Slices of a plane run in one direction (`grids.PLANES`), whatever the
  orientation of the file. Sagittal slices, and fewer than three, have no level.
  """
  words = _LEVELS.get(PLANES[plane][-1])
  if words is None or len(usable) < 3:
    return ''
  return words[(2 * (index - usable.start) + 1) * 3 // (2 * len(usable))]


def side_of(lesions: SliceLesions) -> str:
  """The side with at least 90 % of the area, or 'both'.

  '' if that side has it within 12 mm of the midline, on average.
  """
  if max(lesions.right, 1 - lesions.right) < ONE_SIDE:
    return 'both'
  if abs(lesions.offset) < OFF_MIDLINE:
    return ''
  return 'right' if lesions.right > 0.5 else 'left'


def size_of(area: float) -> str:
  """'small', 'medium' or 'large' for an area in mm2.

  The diameter of a circle of that area is below 26 mm, below 40 mm, or larger.
  """
  diameter = 2 * math.sqrt(area / math.pi)
  if diameter < SMALL:
    return 'small'
  return 'medium' if diameter < LARGE else 'large'


def write(template: str, facts: Facts) -> str:
  """A description in the words of a template of `Prompts.slice_answers`."""
  values = {
    name: _WORDS.get(name, {}).get(value, value)
    for name, value in dataclasses.asdict(facts).items()
  }

  def fill(match: re.Match) -> str:
    fields = re.findall(r'{(\w+)}', match[1])
    return match[1].format(**values) if all(map(values.get, fields)) else ''

  count = 1
  while count:  # innermost brackets first
    template, count = re.subn(r'\[([^\[\]]*)\]', fill, template)
  return template.format(**values)


# Value -> other words for it, in lower case and without hyphens.
_MODALITIES = {
  'MRI': ('mr',),
  'CBCT': ('cone beam ct',),
  'T1CE (MRI)': ('t1c', 'contrast enhanced t1', 'post contrast t1'),
}
_REGIONS = {
  'pelvis': ('pelvic',),
  'head-neck': ('head and neck',),
  'thorax': ('thoracic', 'chest'),
  'abdomen': ('abdominal',),
  'heart': ('cardiac',),
}
_PLANES = {'axial': ('transverse', 'transaxial')}
_PLACES = {
  'upper': ('top', 'superior'),
  'lower': ('bottom', 'inferior'),
  'middle': ('mid', 'central'),
  'front': ('anterior',),
  'back': ('posterior',),
}
_PARTS = ('third', 'part', 'portion')
_SIDES = {
  'right': ('right',),
  'left': ('left',),
  'both': ('both sides', 'bilateral', 'bilaterally'),
}
_A_LESION = r'(?:lesions?|tumou?rs?|mass(?:es)?)'
_NO_LESION = re.compile(
  r'\b(?:no|not|without|free of|absence of)'
  rf'(?: (?!(?:and|but|with)\b)\w+){{0,5}}? {_A_LESION}\b'
  r'|\blesion free\b'
  rf'|\b{_A_LESION}:? (?:(?:is|are) )?'
  r'(?:no|none|absent|not (?:seen|visible|present|shown))\b'
)


def read(text: str) -> tuple[str, ...]:
  """Reads the facts of a description, whatever its words and their order.

  A fact that is not stated, or stated with two values, is ''. Side and size
  count where the text states a lesion. Synonyms are those above.

  Returns:
    A part for every name in `NAMES`, in order: 'side right', or ''.
  """
  plain = _plain(text)
  facts = _read(plain)
  values = (getattr(facts, name) for name in NAMES)
  return tuple(
    f'{name} {value}' if value else ''
    for name, value in zip(NAMES, values, strict=True)
  )


def fact_of(part: str) -> str:
  """The name of the fact that a part of `read` states."""
  return part.partition(' ')[0]


def _read(plain: str) -> Facts:
  modalities = _mentions(
    plain, _terms((m.label for m in Modality), _MODALITIES)
  )
  if len(modalities) > 1:  # 'T1 MRI' is T1
    modalities.discard(Modality.MR.label)
  levels = {
    f'{place} third': [f'{word} {part}' for word in words for part in _PARTS]
    for place, words in _terms(_PLACES, _PLACES).items()
  }
  lesion, side, size = _lesion(plain), '', ''
  if lesion == 'yes':
    side = _only(_mentions(plain, _SIDES))
    size = _only(_mentions(plain, _terms(SIZES)))
  return Facts(
    _only(modalities),
    _only(_mentions(plain, _terms((r.label for r in Region), _REGIONS))),
    _only(_mentions(plain, _terms(PLANES, _PLANES))),
    _only(_mentions(plain, levels)),
    lesion,
    side,
    size,
  )


def _lesion(plain: str) -> str:
  rest, absent = _NO_LESION.subn(' ', plain)
  present = re.search(rf'\b{_A_LESION}\b', rest) is not None
  if present == bool(absent):  # neither, or a contradiction
    return ''
  return 'yes' if present else 'no'


def _plain(text: str) -> str:
  return ' '.join(text.lower().replace('-', ' ').replace('_', ' ').split())


def _terms(
  values: Iterable[str], synonyms: Mapping[str, Iterable[str]] | None = None
) -> dict[str, list[str]]:
  """Value -> the words that state it; '(MRI)' behind a contrast is optional."""
  synonyms = synonyms or {}
  return {
    value: [
      _plain(value),
      _plain(value).removesuffix(' (mri)'),
      *synonyms.get(value, ()),
    ]
    for value in values
  }


def _mentions(plain: str, terms: Mapping[str, Iterable[str]]) -> set[str]:
  """The values that a text states; of several words, the longest counts."""
  by_word = {word: value for value, words in terms.items() for word in words}
  return {by_word[match] for match in _pattern(tuple(by_word)).findall(plain)}


@functools.cache
def _pattern(words: tuple[str, ...]) -> re.Pattern:
  longest_first = sorted(words, key=len, reverse=True)
  return re.compile(
    rf'(?<!\w)(?:{"|".join(map(re.escape, longest_first))})(?!\w)'
  )


def _only(values: set[str]) -> str:
  return next(iter(values)) if len(values) == 1 else ''
