"""Objectives of the stages: sums and counts over a batch, then one division.

An objective maps a batch to `Sums`: for every term the sum of its losses and
their count. Under a sharded jit these sums are global, so a term's mean does
not depend on how rows lie on devices. `OBJECTIVES` is the table of stages; a
project adds one with `register_objective`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float

from synermedgen_jax.core.batch import PackedBatch
from synermedgen_jax.models.bagel import Bagel
from synermedgen_jax.models.canvases import grids_of, targets_of
from synermedgen_jax.models.codes import draw_hidden, shift_right, with_hidden
from synermedgen_jax.models.flow import draw_timesteps
from synermedgen_jax.tasks.registry import task_named
from synermedgen_jax.training.image_losses import (
  Sums,
  autoencoder_sums,
  images_in,
  quantiser_sums,
)
from synermedgen_jax.training.token_losses import token_losses


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
  """Weights of the terms and the constants of the flow.

  Attributes:
    train_shift: shift of the timestep distribution (BAGEL fine-tunes with 1).
    ntp_weight: weight of the next-token loss (cross-entropy). BAGEL has 1.
    flow_weight: weight of the flow-matching loss (squared error). BAGEL has 1.
    task_weights: task -> weight of its next-token loss; 1 by default.
    l2_weight: weight of the autoencoder's squared error, beside its absolute
      error.
    kl_weight: weight of the autoencoder's KL term, per latent number.
    term_weights: term, such as `flow` or `ntp/TASK` -> weight, in place of
      those above; the terms of a registered objective have 1 by default.
    logit_chunk: und tokens of a row whose logits exist at one time.
    freeze_und: 'detach': states of und tokens are constants of the backward
      pass, as with BAGEL's `freeze_und`, which takes less time; nothing before
      the gen expert may be trainable. '': the gradient of the loss.

  Raises:
    ValueError: `freeze_und` has another value.
  """

  train_shift: float = 1.0
  ntp_weight: float = 1.0
  task_weights: Mapping[str, float] = dataclasses.field(default_factory=dict)
  flow_weight: float = 1.0
  l2_weight: float = 0.0
  kl_weight: float = 1e-6
  term_weights: Mapping[str, float] = dataclasses.field(default_factory=dict)
  logit_chunk: int = 256
  freeze_und: str = ''

  def __post_init__(self):
    if self.freeze_und not in ('', 'detach'):
      raise ValueError(
        f"freeze_und {self.freeze_und!r}: expected 'detach' or ''."
      )

  def weight(self, term: str) -> float:
    """The weight of a term of the loss."""
    if term in self.term_weights:
      return self.term_weights[term]
    kind, _, task = term.partition('/')
    if kind == 'ntp':
      return self.ntp_weight * self.task_weights.get(task, 1.0)
    own = {
      'flow': self.flow_weight,
      'l2': self.l2_weight,
      'kl': self.kl_weight,
    }
    return own.get(term, 1.0)


def _ntp_sums(model, params, hidden, batch: PackedBatch, tasks, chunk) -> Sums:
  """Per task: the answer tokens' loss and accuracy."""
  if all(task_named(name).kind == 'synthesis' for name in tasks):
    return {}  # no text has a loss
  losses, right = token_losses(
    model, params, hidden, batch.labels, batch.ntp_weight > 0, chunk=chunk
  )
  sums = {}
  for task_id, task in enumerate(tasks):
    weight = batch.ntp_weight * (batch.task_ids == task_id)
    count = weight.sum()
    sums[f'ntp/{task}'] = ((losses * weight).sum(), count)
    sums[f'token_accuracy/{task}'] = ((right * weight).sum(), count)
  return sums | _answer_sums(right, batch, tasks)


def _answer_sums(
  right: Float[Array, 'b u'], batch: PackedBatch, tasks: Sequence[str]
) -> Sums:
  """Per task: the share of examples whose every answer token is right."""
  places = batch.labels.shape[1]

  def by_example(values):  # (b, u) -> (b, examples), padding first
    return jax.vmap(
      lambda v, ids: jax.ops.segment_max(v, ids, num_segments=places + 1)
    )(values, batch.und.example_ids)

  asked = batch.ntp_weight > 0
  wrong = by_example(jnp.where(asked, 1.0 - right, 0.0))
  # -1, or the dtype's minimum in a segment without tokens: no answer.
  task = by_example(jnp.where(asked, batch.task_ids, -1))
  sums = {}
  for task_id, name in enumerate(tasks):
    answered = (task == task_id).astype(jnp.float32)
    # Segments without tokens have the dtype's minimum in `wrong` too.
    correct = jnp.where(answered > 0, 1.0 - wrong, 0.0)
    sums[f'answer_accuracy/{name}'] = (correct.sum(), answered.sum())
  return sums


def _flow_sums(velocity, latents, noise, batch: PackedBatch) -> Sums:
  """The squared error of the velocity, over latent numbers."""
  error = jnp.square(velocity - (noise - latents)).mean(-1)
  weight = (batch.noise_ids > 0).astype(jnp.float32)
  return {'flow': ((error * weight).sum(), weight.sum())}


def multimodal_sums(
  model: Bagel,
  params,
  batch: PackedBatch,
  key: jax.Array,
  config: ObjectiveConfig,
  tasks: Sequence[str],
) -> Sums:
  """Stage I, Stage II and joint training: the losses that the batch has.

  A batch without a gen stream (Stage I) has next-token losses only; tasks of
  synthesis alone (Stage II) have the loss of the flow or of the codes only.
  """
  options = {
    'chunk': config.logit_chunk,
    'detach_und': config.freeze_und == 'detach',
  }
  latents = noise = t = None
  if batch.latent_index.shape[1]:
    # The autoencoder is frozen in every stage that has a language model.
    bound = model.bind({'params': params})
    latents = lax.stop_gradient(bound.row_latents(batch))
    if model.config.generation != 'flow':
      return code_and_text_sums(
        model, params, batch, latents, key, tasks, **options
      )
    noise_key, t_key = jax.random.split(key)
    options['texture_key'] = jax.random.fold_in(key, 2)
    noise = jax.random.normal(noise_key, latents.shape)
    t = draw_timesteps(t_key, batch.noise_ids, config.train_shift)
  return flow_and_text_sums(
    model, params, batch, latents, noise, t, tasks, **options
  )


def flow_and_text_sums(
  model: Bagel,
  params,
  batch: PackedBatch,
  latents: Float[Array, 'b g d'] | None,
  noise: Float[Array, 'b g d'] | None,
  t: Float[Array, 'b g'] | None,
  tasks: Sequence[str],
  *,
  chunk: int = 256,
  detach_und: bool = False,
  texture_key: jax.Array | None = None,
) -> Sums:
  """The losses for given latents, noise and timesteps.

  Args:
    model: the model.
    params: its parameters.
    batch: `b` rows with `g` gen tokens each.
    latents, noise, t: values for the gen tokens; None without a gen stream.
    tasks: names of the run's tasks, in the order of `batch.task_ids`. Tasks of
      synthesis alone have no next-token losses.
    chunk: und tokens of a row whose logits exist at one time.
    detach_und: as of `MoT.__call__`.
    texture_key: random key of the noise of a detail path.
  """
  noised = None
  if latents is not None:
    noised = (1 - t[..., None]) * latents + t[..., None] * noise
  bound = model.bind({'params': params})
  streams = bound.embed_batch(batch, noised, t)
  hidden, _ = bound.backbone(streams, detach_und=detach_und)
  sums = _ntp_sums(model, params, hidden['und'], batch, tasks, chunk)
  if latents is not None:
    velocity = bound.velocity(hidden['gen'])
    sums |= _flow_sums(velocity, latents, noise, batch)
    if model.config.detail:
      clean = noised - t[..., None] * velocity
      sums |= _pixel_sums(bound, clean, hidden['gen'], batch, texture_key)
  return sums


def _pixel_sums(bound: Bagel, clean, hidden, batch: PackedBatch, key) -> Sums:
  """Scores of two draws of each target: of pixels, and of their differences.

  Training by the score of single values alone yields draws that also vary
  together as the truth does (FGN, arXiv 2506.10772). The differences between
  neighbours score texture directly.
  """
  stride = bound.config.latent_stride
  targets = targets_of(batch, stride)
  _, _, height, width, _ = batch.vae_images.shape
  grid = height // stride, width // stride
  pictures = bound.pictures(
    *(grids_of(x, batch, targets, grid) for x in (clean, hidden)),
    targets.sources,
    jax.random.normal(key, (2, *targets.images.shape[:-1])),
  )
  steps = [
    crps(*(jnp.diff(x, axis=axis) for x in (pictures, targets.images)))
    for axis in (-3, -2)
  ]
  real = targets.real.astype(jnp.float32)
  return {
    name: ((error * real).sum(), real.sum())
    for name, error in (
      ('pixels', crps(pictures, targets.images)),
      ('edges', sum(steps)),
    )
  }


def crps(
  draws: Float[Array, '2 b t h w c'], truth: Float[Array, 'b t h w c']
) -> Float[Array, 'b t']:
  """The continuous ranked probability score of two draws, mean of an image.

  The unbiased estimate: the mean |draw - truth| less half of the distance
  between the draws. The absolute error, if both draws are equal.
  """
  first, second = draws
  errors = jnp.abs(first - truth) + jnp.abs(second - truth)
  return (errors - jnp.abs(first - second)).mean((2, 3, 4)) / 2


def code_and_text_sums(
  model: Bagel,
  params,
  batch: PackedBatch,
  latents: Float[Array, 'b g d'],
  key: jax.Array,
  tasks: Sequence[str],
  *,
  chunk: int = 256,
  detach_und: bool = False,
) -> Sums:
  """The losses of a model of codes: cross-entropy of hidden or next codes.

  Args:
    key: random key of the codes that are hidden.
    model, params, batch, latents, tasks, chunk, detach_und: as of
      `flow_and_text_sums`.
  """
  bound = model.bind({'params': params})
  target = batch.noise_ids > 0
  known = lax.stop_gradient(bound.quantise(latents))
  if model.config.generation == 'masked':
    wanted = hidden_codes = draw_hidden(key, batch.noise_ids)
  else:
    wanted = target
    known, hidden_codes = shift_right(known, batch.noise_ids)
  shown = jnp.where(target[..., None], known, latents)
  streams = bound.embed_batch(batch, *with_hidden(shown, hidden_codes))
  hidden, _ = bound.backbone(streams, detach_und=detach_und)
  sums = _ntp_sums(model, params, hidden['und'], batch, tasks, chunk)
  codes = bound.codes(latents)
  logits = bound.code_logits(hidden['gen'])
  losses = optax.softmax_cross_entropy_with_integer_labels(logits, codes)
  right = jnp.argmax(logits, axis=-1) == codes
  count = wanted.sum().astype(jnp.float32)
  return sums | {
    'codes': ((losses * wanted).sum(), count),
    'code_accuracy': ((right & wanted).sum().astype(jnp.float32), count),
  }


def total(
  sums: Sums, config: ObjectiveConfig, terms: Collection[str]
) -> Float[Array, '']:
  """The loss that is differentiated: the weighted means of `terms`, added up.

  Next-token terms are averaged within each task and added over tasks
  (L = L_CTS + L_MI + L_TIA), so a long answer does not outweigh a letter.
  """
  return sum(
    (
      config.weight(name) * value / jnp.maximum(count, 1.0)
      for name, (value, count) in sums.items()
      if name.partition('/')[0] in terms
    ),
    start=jnp.zeros(()),
  )


def packed_statistics(model: Bagel, batch: PackedBatch) -> Sums:
  """Tokens of each stream, their share of the row, and images."""
  sums = {}
  for name, layout in (('und', batch.und), ('gen', batch.gen)):
    used = (layout.example_ids > 0).sum().astype(jnp.float32)
    sums[f'fill/{name}'] = (used, jnp.float32(layout.example_ids.size))
    sums[f'tokens/{name}'] = (used, jnp.ones(()))
  images = images_in(batch, model.config.latent_stride)
  return sums | {'images': (images, jnp.ones(()))}


@dataclasses.dataclass(frozen=True)
class Objective:
  """The loss of one stage.

  Attributes:
    sums: (model, params, batch, key, config, tasks) -> `Sums`: a `Bagel`, its
      parameters, a `PackedBatch`, the step's random key, an `ObjectiveConfig`,
      and the names of the run's tasks in the order of their ids.
    terms: the terms that add up to the loss; 'ntp' stands for all 'ntp/TASK'.
      The other terms of `sums` are logged only. A stage with 'ntp' trains
      understanding, one with 'flow' synthesis.
    statistics: (model, batch) -> `Sums` that describe a batch, logged only.
    carries: `sums` also takes `TrainState.memory`, and returns it changed
      beside the sums.
  """

  sums: Callable[..., Any]
  terms: Collection[str]
  statistics: Callable[..., Sums] = packed_statistics
  carries: bool = False


OBJECTIVES: dict[str, Objective] = {}


def register_objective(
  stage: str,
  sums: Callable[..., Any],
  terms: Collection[str],
  *,
  statistics: Callable[..., Sums] = packed_statistics,
  carries: bool = False,
) -> Objective:
  """Adds a stage, for `config.stage`.

  Args:
    stage: its name.
    sums, terms, statistics, carries: as `Objective` has them.

  Raises:
    ValueError: the name is taken.
  """
  if stage in OBJECTIVES:
    raise ValueError(f'Stage {stage!r} is registered already.')
  OBJECTIVES[stage] = Objective(sums, terms, statistics, carries)
  return OBJECTIVES[stage]


# Stage II and joint training have the loss of the flow or that of the codes.
_MULTIMODAL = ('ntp', 'flow', 'codes', 'pixels', 'edges')

register_objective('autoencoder', autoencoder_sums, ('l1', 'l2', 'kl'))
register_objective('quantiser', quantiser_sums, ('l1', 'l2'))
register_objective('gau', multimodal_sums, ('ntp',))  # Stage I
register_objective('ucg', multimodal_sums, _MULTIMODAL)  # Stage II
register_objective('joint', multimodal_sums, _MULTIMODAL)
