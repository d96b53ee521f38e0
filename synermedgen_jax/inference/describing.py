"""Synthesis prompts with a text that the model has written before.

The model reads the source images and the instruction, writes a text, and the
text follows the instruction as context of synthesis. Source: UniMedVL's default
mode, uni-medical/UniMedVL, codes/interactive_image_generator.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from synermedgen_jax.config.sampling import CONDITIONS, Context
from synermedgen_jax.core.batch import Capacity, ImageGeometry
from synermedgen_jax.inference.sampling import prompt_capacity
from synermedgen_jax.input.tokenizer import Tokenizer
from synermedgen_jax.tasks.example import Example

# Smallest room for a text; larger ones double, so that few programs compile.
_ROOM = 64


def question(prompt: Example, withheld: Sequence[str] = ()) -> Example:
  """ViT images and instruction of a prompt, to be answered by a text.

  Args:
    prompt: a prompt of synthesis.
    withheld: conditions that are left out, some of `CONDITIONS`.
  """
  left_out = {CONDITIONS[name] for name in ('vae', *withheld)}
  spans = tuple(span for span in prompt.spans if span.kind not in left_out)
  return dataclasses.replace(prompt, spans=spans)


def described(prompt: Example, description: str) -> Example:
  """The prompt with a text after its instruction, in the same span.

  Args:
    prompt: a prompt of synthesis.
    description: the text; one without words changes nothing.
  """
  if not description.strip():
    return prompt
  spans = tuple(
    dataclasses.replace(span, text=f'{span.text}\n\n{description}')
    if span.kind == 'text'
    else span
    for span in prompt.spans
  )
  return dataclasses.replace(prompt, spans=spans)


def widened(
  capacities: Mapping[Context, Capacity],
  prompts: Sequence[Example],
  tokenizer: Tokenizer,
  geometry: ImageGeometry,
  withheld: Sequence[str] = (),
) -> dict[Context, Capacity]:
  """Capacities with room for these prompts: 0, 64, 128, 256, ... more tokens.

  Args:
    capacities: context -> capacity of a row for prompts without descriptions.
    prompts: prompts with descriptions.
    tokenizer, geometry: see `packing.measure`.
    withheld: as of `question`.
  """
  rows = {}
  for context, capacity in capacities.items():
    needed = prompt_capacity(prompts, tokenizer, geometry, context, withheld)
    room = _room(needed.und - capacity.und)
    rows[context] = dataclasses.replace(capacity, und=capacity.und + room)
  return rows


def _room(tokens: int) -> int:
  """The smallest of 0, 64, 128, 256, ... that holds these tokens."""
  if tokens <= 0:
    return 0
  return max(_ROOM, 1 << (tokens - 1).bit_length())
