"""Models and rows for timing this library and the PyTorch rival.

The models of `ROWS` are timed with BAGEL's recipe: AdamW, an averaged copy of
the trained weights, shares of tasks as released. Other presets are timed with
the config of `stages.stage_config`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from ml_collections import ConfigDict

from benchmarks import stages
from synermedgen_jax.config.defaults import BAGEL_SAMPLING
from synermedgen_jax.config.sampling import Context, Guidance, SamplingConfig
from synermedgen_jax.core.batch import Capacity, PackedBatch
from synermedgen_jax.core.modalities import ROUTES
from synermedgen_jax.core.size import Size
from synermedgen_jax.inference import sampling
from synermedgen_jax.input.mixture import Mixture
from synermedgen_jax.input.tokenizer import project_tokenizer
from synermedgen_jax.models.autoencoder import AutoencoderConfig
from synermedgen_jax.models.bagel_config import BagelConfig
from synermedgen_jax.models.mot import MoTConfig
from synermedgen_jax.models.presets import preset
from synermedgen_jax.models.vit import ViTConfig
from synermedgen_jax.planning.rows import sample_rows
from synermedgen_jax.tasks import synthesis
from synermedgen_jax.tasks.example import Example
from synermedgen_jax.tasks.prompts import PAPER, PROMPTS
from synermedgen_jax.tasks.registry import task_names


@dataclasses.dataclass(frozen=True)
class Rows:
  """The rows of a batch.

  Attributes:
    image: heights and widths in pixels for the ViT and the autoencoder.
    capacity: capacity of a row.
    rows: rows per step.
  """

  image: dict[str, Size]
  capacity: Capacity
  rows: int = 1


# (model, stage) -> rows that are more than 90 % full.
ROWS = {
  # 14 ViT slices of 24 x 24 tokens.
  ('base_1b', 'stage1'): Rows(
    {'vit_size': (336, 336), 'vae_size': (512, 512)},
    Capacity(8576, 0, 14 * 576, 0),
  ),
  # Four pairs: 24 x 24 ViT tokens and 2 x 32 x 32 latent tokens each.
  ('base_1b', 'stage2'): Rows(
    {'vit_size': (336, 336), 'vae_size': (512, 512)},
    Capacity(2560, 8192, 4 * 576, 8),
  ),
  # Two questions of five slices of 14 x 14 tokens.
  ('medium', 'stage1'): Rows(
    {'vit_size': (224, 224), 'vae_size': (256, 256)},
    Capacity(2176, 0, 10 * 196, 0),
  ),
  # Two pairs: 14 x 14 ViT tokens and 2 x 16 x 16 latent tokens each.
  ('medium', 'stage2'): Rows(
    {'vit_size': (224, 224), 'vae_size': (256, 256)},
    Capacity(480, 1024, 2 * 196, 4),
  ),
}


def medium() -> BagelConfig:
  """About 40 M parameters in two experts: seconds per step on a CPU."""
  return BagelConfig(
    llm=MoTConfig(
      hidden=512,
      layers=8,
      heads=8,
      kv_heads=2,
      head_dim=64,
      mlp=1536,
      vocab=8192,
    ),
    vit=ViTConfig(
      hidden=384,
      layers=6,
      heads=6,
      mlp=1536,
      patch=16,
      channels=3,
      table=16,
    ),
    autoencoder=AutoencoderConfig(
      channels=3, ch=32, ch_mult=(1, 2, 4, 4), num_res_blocks=1, z_channels=16
    ),
    latent_table=16,
    vit_table=16,
  )


def model_shape(name: str) -> BagelConfig:
  """The model `medium`, or a preset."""
  return medium() if name == 'medium' else preset(name)


def stage_config(stage: str, model: str) -> ConfigDict:
  """`configs/STAGE.py` with the rows and the recipe of the benchmark."""
  config = stages.stage_config(stage, model)
  if model == 'medium':
    config.compute.update(dtype='float32', remat='none', unroll=8)
  if case := ROWS.get((model, stage)):
    config.image = dict(case.image)
    config.capacity = dataclasses.asdict(case.capacity)
    config.rows = case.rows
    config.optimizer = 'adamw'
    config.learning_rate = 2e-5
    config.ema = 0.9999
  return config


def task_weights(config: ConfigDict) -> list[float]:
  """The weight of every task's next-token loss, in the order of their ids."""
  weights = config.objective.get('task_weights', {})
  return [weights.get(task, 1.0) for task in task_names(config.tasks)]


def sampled_batch(config: ConfigDict, model: BagelConfig) -> PackedBatch:
  """A batch of the config's tasks, packed from blank slices."""
  return sample_rows(
    Mixture(
      config.tasks,
      PROMPTS[config.prompts],
      routes=config.routes,
      max_sources=config.max_sources,
    ),
    project_tokenizer(),
    model.image_geometry(**config.image),
    Capacity(**config.capacity),
    rows=config.rows,
  )


def sampling_config(points: int) -> SamplingConfig:
  """BAGEL's sampling with three contexts, and this number of timesteps."""
  guidance = Guidance(**BAGEL_SAMPLING['guidance'])
  return SamplingConfig(points, BAGEL_SAMPLING['shift'], guidance)


def sampling_prompts(
  name: str, model: BagelConfig, batch: int, config: SamplingConfig
) -> dict[Context, sampling.Prompt]:
  """Prompts of `batch` slices of one route, blank, for every context.

  Slices have the size of the model's Stage II config.
  """
  tokenizer = project_tokenizer()
  geometry = model.image_geometry(**stage_config('stage2', name).image)
  examples = _prompts(batch)
  capacities = {
    context: sampling.prompt_capacity(examples, tokenizer, geometry, context)
    for context in config.guidance.contexts
  }
  blank = np.zeros(geometry.vae_size, np.float32)
  return sampling.pack_prompts(
    examples, tokenizer, geometry, lambda _: blank, capacities
  )


def _prompts(count: int) -> Sequence[Example]:
  return [
    synthesis.prompt(ROUTES[0], 'case', index, PAPER) for index in range(count)
  ]


# (mode, tokens): source latents, source ViT tokens, instruction, target.
_EXAMPLE = (('full', 258), ('full', 258), ('causal', 30), ('noise', 258))


def synthesis_row(length: int) -> list[np.ndarray]:
  """(order, visible_from, visible_to) of a full row, in packing order."""
  bounds, start = [], 0
  end_of_example = sum(tokens for _, tokens in _EXAMPLE)
  while start < length:
    end = start + end_of_example
    for mode, tokens in _EXAMPLE:
      for place in range(start, start + tokens):
        bounds.append(
          (
            place if mode == 'causal' else start,
            start + tokens if mode == 'noise' else end,
          )
        )
      start += tokens
  visible_from, visible_to = np.asarray(bounds[:length], np.int32).T
  order = np.arange(length, dtype=np.int32)
  return [x[None] for x in (order, visible_from, visible_to)]
