"""Adherence: what a synthesis takes from its source and its instruction.

The understanding tasks are said to prevent three faults: without CTS, anatomy
drifts; without MI, the target modality is out of control; without TIA,
directions are reversed. `ADHERENCE` has a score for each, and one for the use
of every condition. `evaluate --adherence` computes those that are named.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float, Int

from synermedgen_jax.core.modalities import Modality, Route
from synermedgen_jax.evaluation import drift
from synermedgen_jax.evaluation.scores import Number, Score
from synermedgen_jax.evaluation.ssim import stored_slice_ssim_map

Slices = Float[np.ndarray, 'z h w']


class Again(Protocol):
  """Synthesises the slices of an output again, under other conditions."""

  def __call__(
    self, *, instruction: Route | None = None, withheld: Sequence[str] = ()
  ) -> Slices:
    """Synthesises with another instruction, or without some conditions.

    Args:
      instruction: the route whose description is the instruction.
      withheld: conditions to leave out, beside those of the sampling.
    """


# Slices in [-1, 1] -> the modality that each shows; None if it cannot be read.
Reader = Callable[[Slices], Sequence[Modality | None]]


@dataclasses.dataclass(frozen=True)
class Output:
  """A synthesis of one route for one case, and what it is compared with.

  Attributes:
    route: sources -> target.
    synthesis: the synthesised slices, in [-1, 1].
    indices: their places in the volumes.
    mask: their body masks.
    source: all slices of the first source, in [-1, 1].
    truth: all slices of the target, in [-1, 1].
    usable: slices of the volumes that show the body.
    pixel: mm between pixels along (row, column).
    withheld: conditions that the sampling leaves out.
    again: synthesises the same slices under other conditions.
    read: the evaluated model's answers to MI; None = it answers no questions.
    classify: the answers of a classifier that is independent of the model.
  """

  route: Route
  synthesis: Slices
  indices: Int[np.ndarray, ' z']
  mask: Bool[np.ndarray, 'z h w']
  source: Float[np.ndarray, 'n h w']
  truth: Float[np.ndarray, 'n h w']
  usable: range
  pixel: tuple[float, float]
  withheld: Sequence[str]
  again: Again
  read: Reader | None
  classify: Reader

  @property
  def source_slices(self) -> Slices:
    return self.source[self.indices]

  @property
  def truth_slices(self) -> Slices:
    return self.truth[self.indices]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adherence(Score):
  """One score of adherence.

  Attributes:
    function: output -> metric -> value; a mean over the slices.
    needs_instruction: the score changes instruction or conditions, which other
      systems do not have.
    one_source: the score is of routes with one source.
  """

  function: Callable[[Output], dict[str, float]]
  needs_instruction: bool = False
  one_source: bool = False

  def applies(self, route: Route) -> bool:
    return not self.one_source or len(route.sources) == 1


def _drift(output: Output) -> dict[str, float]:
  values = {}
  for suffix, images in (
    ('', output.synthesis),
    ('_truth', output.truth_slices),
  ):
    place = output.indices, output.usable
    values[f'in_plane{suffix}'] = drift.in_plane(
      images, output.source_slices, output.pixel
    )
    values[f'through_plane{suffix}'] = drift.through_plane(
      images, output.source, *place
    )
  offsets = drift.nearest_target(
    output.synthesis, output.truth, output.indices, output.usable, output.mask
  )
  values |= {'nearest_offset': offsets, 'nearest': offsets == 0}
  return {name: float(np.mean(value)) for name, value in values.items()}


def _control(output: Output) -> dict[str, float]:
  target, values = output.route.target, {}
  readers = {'read': output.read, 'classified': output.classify}
  for suffix, images in (
    ('', output.synthesis),
    ('_truth', output.truth_slices),
  ):
    for name, reader in readers.items():
      if reader is None:
        continue
      shown = reader(images)
      values[f'{name}{suffix}'] = _share(m == target for m in shown)
      if not suffix:
        values[f'{name}_source'] = _share(
          m in output.route.sources for m in shown
        )
  return values


def _share(hits) -> float:
  return float(np.mean([*hits]))


def _direction(output: Output) -> dict[str, float]:
  if 'text' in output.withheld:  # there is no instruction to follow
    return {}
  swapped = output.again(instruction=output.route.reverse)
  ends = output.source_slices, output.truth_slices
  given = position(output.synthesis, *ends, output.mask)
  turned = position(swapped, *ends, output.mask)
  return {
    'given': float(np.mean(given)),
    'swapped': float(np.mean(turned)),
    'turn': float(np.mean(given - turned)),
    'reversed': float(np.mean(given < 0.5)),
    'inverted': float(np.mean((given < 0.5) & (turned > 0.5))),
  }


def position(
  images: Slices,
  source: Slices,
  truth: Slices,
  mask: Bool[np.ndarray, 'z h w'],
) -> Float[np.ndarray, ' z']:
  """Where images lie on the line from the source (0) to the truth (1).

  It is the coefficient of the least-squares fit of `image - source` by
  `truth - source` over the body of a slice.

  Args:
    images, source, truth: slices in [-1, 1].
    mask: their body masks; a slice without body is fitted in the full frame.
  """
  body = drift.body_or_frame(mask)
  step = np.where(body, truth - source, 0.0).astype(np.float64)
  length = (step**2).sum((1, 2))
  along = ((images - source) * step).sum((1, 2))
  return along / np.maximum(length, 1e-12)


_WITHHELD = {'words': 'text', 'vit': 'vit', 'latents': 'vae'}


def _use(output: Output) -> dict[str, float]:
  def quality(images):
    maps = stored_slice_ssim_map(images, output.truth_slices)
    return float(maps[drift.body_or_frame(output.mask)].mean())

  with_all = quality(output.synthesis)
  return {
    name: with_all - quality(output.again(withheld=(condition,)))
    for name, condition in _WITHHELD.items()
    if condition not in output.withheld
  }


_DIMENSION = '2-D; mean over the slices of a case, then over the cases'

ADHERENCE: Mapping[str, Adherence] = {
  'drift': Adherence(
    title='drift',
    function=_drift,
    numbers={
      'in_plane': Number('in plane', 2, 'mm'),
      'in_plane_truth': Number('in plane, truth', 2, 'mm'),
      'through_plane': Number('through plane', 2, 'slices'),
      'through_plane_truth': Number('through plane, truth', 2, 'slices'),
      'nearest_offset': Number('nearest target', 2, 'slices'),
      'nearest': Number('nearest target in place', 3),
    },
    definition={
      'in_plane': 'length of the shift between a synthesis and its source '
      'slice with the largest normalised mutual information (32 bins, up to '
      '16 mm or 4 pixels, a parabola between pixels)',
      'through_plane': 'distance to the source slice with the largest '
      f'normalised mutual information, up to {drift.NEIGHBOURS} slices away',
      'nearest_offset': 'distance to the true target slice with the largest '
      'SSIM in the body mask of the slice, up to '
      f'{drift.NEIGHBOURS} slices away; nearest: share in which it is the '
      'slice of the same place',
      'truth': 'the same of the acquired target, the reference',
      'dimension': _DIMENSION,
      'unit': 'mm; slices; 1',
    },
  ),
  'control': Adherence(
    title='control',
    function=_control,
    numbers={
      'read': Number('read as the target', 3),
      'read_source': Number('as the source', 3),
      'read_truth': Number('truth', 3),
      'classified': Number('classified as the target', 3),
      'classified_source': Number('as the source', 3),
      'classified_truth': Number('truth', 3),
    },
    definition={
      'read': "share of synthesised slices that the model's own answers to MI "
      'name as the target',
      'classified': 'share that an independent classifier, trained on acquired '
      'slices of the training subjects, takes for the target',
      'source': 'share taken for a source instead',
      'truth': 'the share of acquired target slices that are read right, the '
      'reference',
      'dimension': _DIMENSION,
      'unit': '1',
    },
  ),
  'direction': Adherence(
    title='direction',
    function=_direction,
    needs_instruction=True,
    one_source=True,
    numbers={
      'given': Number('position', 3),
      'swapped': Number('with swapped ends', 3),
      'turn': Number('turn', 3),
      'reversed': Number('reversed', 3),
      'inverted': Number('inverted', 3),
    },
    definition={
      'given': 'position of the synthesis on the line from the source slice '
      '(0) to the true target slice (1), by least squares in the body mask',
      'swapped': 'the same where the instruction describes the reverse route; '
      'a model that follows it makes the source again: 0',
      'turn': 'the difference of the two: 1 = the instruction is followed, 0 = '
      'it has no effect',
      'reversed': 'share of slices nearer to the source than to the target, '
      'copies of the source among them',
      'inverted': 'share of those that are nearer to the target where the '
      'instruction is swapped: not copies, but directions taken for the other',
      'dimension': _DIMENSION,
      'unit': '1',
    },
  ),
  'use': Adherence(
    title='use of conditions',
    function=_use,
    needs_instruction=True,
    numbers={
      'words': Number('words', 3),
      'vit': Number('ViT tokens', 3),
      'latents': Number('latents', 3),
    },
    definition={
      'loss': 'SSIM in the body mask with all conditions of the sampling, '
      'minus SSIM without the instruction, the ViT tokens, or the latents of '
      'the source; a model that was trained without dropout has never met '
      'their absence',
      'dimension': _DIMENSION,
      'unit': '1, difference of SSIM; 0 = the condition is not used',
    },
  ),
}
