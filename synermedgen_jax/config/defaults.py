"""The keys of a config: defaults, meanings and units.

Defaults are those of BAGEL's released fine-tuning. docs/reference.md is written
from this table (`python -m synermedgen_jax.reporting.config_reference`).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, NamedTuple

from ml_collections import ConfigDict


class Key(NamedTuple):
  """One key of a config.

  Attributes:
    name: dotted where it is nested.
    default: its value in `default_config`.
    meaning: one or two sentences of Markdown.
    unit: of the value; '' = none.
  """

  name: str
  default: Any
  meaning: str
  unit: str = ''


# Heading -> keys.
KEYS = {
  'Stage': (
    Key(
      'stage',
      '',
      'Objective: `autoencoder`, `quantiser`, `gau`, `ucg`, `joint` or a '
      'registered one.',
    ),
    Key(
      'modules',
      (),
      'Python modules that register tasks, objectives, modalities, routes, '
      'metrics or models; imported before anything is built.',
    ),
    Key('seed', 0, 'Random seed of parameters, examples, noise and timesteps.'),
  ),
  'Model': (
    Key(
      'model',
      '',
      'Shape: a preset of `models/presets.py`, or `init_from` for the shape '
      'that `init_from` holds.',
    ),
    Key(
      'experts',
      'mot',
      '`mot`: `und` runs on text and ViT tokens, `gen` on latent tokens. '
      '`shared`: `und` runs on all (docs/baselines.md), and `gen` of '
      '`init_from` is left out.',
    ),
    Key(
      'generation',
      'flow',
      '`flow`: rectified flow of latents. `masked`, `autoregressive`: codes of '
      'latents, after the stage `quantiser` (docs/baselines.md).',
    ),
    Key(
      'detail',
      0,
      'Channels of the detail path at full resolution (docs/detail.md); 0 for '
      'none.',
      'channels',
    ),
    Key('compute.dtype', 'bfloat16', '`bfloat16` or `float32`.'),
    Key(
      'compute.remat',
      '',
      'Recomputation in the backward pass: `full` recomputes every layer, '
      '`dots` keeps matrix products, `none` keeps everything; empty is `dots` '
      'for `bagel_7b` on v5p chips, and `full` otherwise.',
    ),
    Key(
      'compute.attention',
      '',
      'Implementation of attention (docs/kernels.md); empty chooses by device.',
    ),
    Key(
      'compute.unroll',
      1,
      'Layers per iteration of the scan over layers.',
      'layers',
    ),
  ),
  'Start': (
    Key(
      'init_from',
      '',
      'Weights to start from: the workdir of a run or of `import_bagel`, a '
      'weights folder, or its address `hf://OWNER/NAME[@REVISION]`, of which '
      'the run keeps the commit.',
    ),
    Key('init_step', 'newest', 'Checkpoint: `newest`, `best`, or a step.'),
    Key(
      'from_scratch',
      False,
      'Train `gau`, `ucg` or `joint` from random weights. Without it, these '
      'stages refuse an empty `init_from`.',
    ),
  ),
  'Data': (
    Key('store', '', 'Slice store: a folder, `gs://` or `s3://`.'),
    Key(
      'tokenizer',
      '',
      'Tokenizer: empty for that of `init_from`, `project` for the one that '
      'ships, or a folder or address with tokenizer.json.',
    ),
    Key(
      'prompts',
      'paper',
      'Wordings: `paper` has several wordings and word orders, `short` is for '
      'small models.',
    ),
    Key('tasks', {}, 'Task -> share of the examples.'),
    Key(
      'bagel_files.vlm',
      '',
      'JSONL files of conversations, for the task `vlm` (docs/data.md).',
    ),
    Key(
      'bagel_files.images',
      '',
      'Folder of their images; empty for the folder of the JSONL file.',
    ),
    Key('bagel_files.editing', '', 'Parquet files for the task `editing`.'),
    Key('bagel_files.val_vlm', '', 'Conversations for validation.'),
    Key('bagel_files.val_editing', '', 'Edits for validation.'),
    Key(
      'routes',
      (),
      'Names of the routes to train on, also with several sources as in '
      '`brats_t1+t2_to_flair`; empty for all with one source.',
    ),
    Key(
      'max_sources',
      1,
      'Largest number of sources of a synthesis: further ones, of `routes` '
      'with the same target, are drawn for every pair (docs/data.md). 1 draws '
      'none.',
      'sources',
    ),
    Key(
      'subjects',
      1.0,
      'Share of the training subjects of each dataset that are used, at least '
      'one; the same ones whatever the seed, and all of a smaller share.',
    ),
    Key(
      'route_weights',
      (),
      'Rows `(regular expression of a route, weight)`: how often its pairs are '
      'synthesised. The first match counts; routes without a match have 1.',
    ),
    Key(
      'neighbours',
      3,
      'Largest distance between the negatives of CTS and the true slice.',
      'slices',
    ),
    Key(
      'slab',
      1,
      'Neighbouring slices that are synthesised together (docs/volumes.md).',
      'slices',
    ),
    Key(
      'image.vit_size',
      (392, 392),
      'Height and width of an image for the ViT.',
      'pixels',
    ),
    Key(
      'image.vae_size',
      (512, 512),
      'Height and width of an image for the autoencoder.',
      'pixels',
    ),
    Key('dropout.text', 0.1, 'Rate at which the instruction is dropped.'),
    Key(
      'dropout.vae', 0.3, "Rate at which the source's VAE tokens are dropped."
    ),
    Key(
      'dropout.vit', 0.3, "Rate at which the source's ViT tokens are dropped."
    ),
    Key(
      'augment.mirror',
      0.0,
      'Share of the training examples whose images are mirrored.',
    ),
    Key(
      'augment.warp',
      0.0,
      'Share of the training pairs for synthesis that are turned, scaled and '
      'shifted.',
    ),
    Key(
      'augment.noise',
      0.0,
      'Standard deviation of noise on the images of questions, whose values '
      'span -1 to 1.',
    ),
  ),
  'Batch': (
    Key('capacity.und', 0, 'Length of the `und` stream of a row.', 'tokens'),
    Key('capacity.gen', 0, 'Length of the `gen` stream of a row.', 'tokens'),
    Key('capacity.vit', 0, 'ViT patches of a row.', 'patches'),
    Key('capacity.images', 0, 'Images for the autoencoder in a row.', 'images'),
    Key(
      'rows',
      -1,
      'Rows of a batch, over all devices; -1 is one row per device of the data '
      'and fsdp axes.',
      'rows',
    ),
    Key(
      'streams',
      -1,
      'Streams of examples, each packed into rows of its own; -1 is one per '
      'row.',
      'streams',
    ),
    Key('packing_bins', 16, 'Open rows while a stream is packed.', 'rows'),
    Key('reader_threads', 2, 'Threads that read slices.', 'threads'),
    Key(
      'mesh',
      (1, -1, 1),
      'Devices along the axes data, fsdp and tensor; -1 is the remaining ones.',
      'devices',
    ),
  ),
  'Optimisation': (
    Key(
      'trainable',
      (),
      'Rows `(regular expression of a parameter, learning-rate multiplier)`; '
      'the first match counts, 0 freezes.',
    ),
    Key('objective', {}, 'Weights of the losses; see the table below.'),
    Key('steps', 20_000, 'Length of the training.', 'steps'),
    Key('optimizer', 'adamw', '`adamw`, `muon` or `sgd`.'),
    Key(
      'learning_rate',
      2e-5,
      'Learning rate after the warm-up, before the multipliers of `trainable`.',
    ),
    Key('warmup', 2000, 'Steps of linear warm-up.', 'steps'),
    Key(
      'decay',
      'constant',
      'After the warm-up: `constant`, `cosine`, `poly`, or `linear` over the '
      'second half of the steps.',
    ),
    Key('b1', 0.9, "Decay of AdamW's first moment."),
    Key('b2', 0.95, "Decay of AdamW's second moment."),
    Key('eps', 1e-15, "AdamW's epsilon."),
    Key('weight_decay', 0.0, 'Decoupled weight decay.'),
    Key('clip', 1.0, 'Largest global norm of the gradient.'),
    Key('ema', 0.9999, 'Decay of the averaged parameters; 0 for no average.'),
    Key(
      'max_bad_steps',
      10,
      'Skipped steps in a row (NaN or Inf) after which the run ends.',
      'steps',
    ),
  ),
  'Sampling': (
    Key(
      'sampling.points',
      50,
      'Timesteps from noise to image, both ends included; of masked codes, '
      'from all hidden to none.',
      'timesteps',
    ),
    Key('sampling.shift', 3.0, 'Shift of the timesteps.'),
    Key('sampling.guidance.text', 4.0, 'Scale of the text guidance; 1 = none.'),
    Key(
      'sampling.guidance.image', 2.0, 'Scale of the image guidance; 1 = none.'
    ),
    Key(
      'sampling.guidance.interval',
      (0.0, 1.0),
      'Guidance acts on timesteps t with low < t <= high.',
    ),
    Key(
      'sampling.guidance.renorm',
      'text_channel',
      'Norm that guided velocities are scaled back to: `global`, `channel` or '
      '`text_channel`.',
    ),
    Key(
      'sampling.guidance.renorm_min', 0.0, 'Smallest factor of that scaling.'
    ),
    Key(
      'sampling.describe_tokens',
      0,
      'Largest length of a text that the model first writes about the source '
      'and reads after the instruction; 0 for none.',
      'tokens',
    ),
    Key(
      'sampling.draws',
      1,
      'Draws of the detail path whose mean is the image (docs/detail.md).',
      'draws',
    ),
    Key(
      'sampling.grain',
      1.0,
      'Length along z over which noise continues (docs/volumes.md); 1 = the '
      'noise of every slice is independent.',
      'slices',
    ),
    Key(
      'sampling.withheld',
      (),
      'Conditions that the model does not get: some of `text`, `vae`, `vit`.',
    ),
  ),
  'Logs and checkpoints': (
    Key('log_every', 50, 'Interval of the rows of metrics.jsonl.', 'steps'),
    Key('val_every', 500, 'Interval of validation; 0 for none.', 'steps'),
    Key('val_batches', 8, 'Batches of a validation.', 'batches'),
    Key('checkpoint_every', 1000, 'Interval of checkpoints.', 'steps'),
    Key('keep', 2, 'Number of newest checkpoints to keep.', 'checkpoints'),
    Key(
      'keep_every',
      0,
      'Also keep the checkpoints at this interval; 0 for none.',
      'steps',
    ),
    Key(
      'best',
      '',
      'Also keep the best checkpoint by a metric such as `val/loss`.',
    ),
    Key('profile.start', 0, 'First step of a trace.', 'steps'),
    Key('profile.steps', 0, 'Length of the trace; 0 for none.', 'steps'),
  ),
}


# Keys of a system of the arena (configs/baselines/*.py) beside `_SHARED`.
SYSTEM_KEYS = (
  Key('stage', '', 'System: a name of `baselines/registry.py`.'),
  Key('model', 'published', 'Preset of its networks: `published` or `small`.'),
  Key(
    'scope',
    'route',
    'What one training serves: `route` (the one of `routes`), `pair` (both '
    'directions of it, for systems that learn them together), or `all` routes, '
    'with the modalities as further channels.',
  ),
  Key('size', (256, 256), 'Height and width of an image.', 'pixels'),
  Key(
    'modalities',
    (),
    'Modalities of the routes; written by the run.',
  ),
  Key(
    'autoencoder',
    {},
    'Shape of the frozen autoencoder of `init_from`; written by the run.',
  ),
)
_SHARED = (
  *('modules', 'seed', 'compute.dtype', 'init_from', 'init_step', 'store'),
  *('routes', 'route_weights', 'augment.mirror', 'augment.warp', 'rows'),
  *('streams', 'reader_threads', 'mesh', 'trainable', 'steps', 'optimizer'),
  *('learning_rate', 'warmup', 'decay', 'b1', 'b2', 'eps', 'weight_decay'),
  *('clip', 'ema', 'max_bad_steps', 'log_every', 'val_every', 'val_batches'),
  *('checkpoint_every', 'keep', 'keep_every', 'best'),
  *('profile.start', 'profile.steps'),
)


def default_config() -> ConfigDict:
  """Every key at its default; configs/*.py set those of a stage."""
  return _config_of([key for keys in KEYS.values() for key in keys])


def system_config() -> ConfigDict:
  """The keys of a system of the arena, without averages or warm-up."""
  shared = [k for keys in KEYS.values() for k in keys if k.name in _SHARED]
  config = _config_of([*SYSTEM_KEYS, *shared])
  config.compute.dtype = 'float32'
  config.update(rows=1, warmup=0, ema=0.0, eps=1e-8, clip=1e9)
  config.trainable = (('.*', 1.0),)
  return config


def _config_of(keys: Iterable[Key]) -> ConfigDict:
  values: dict[str, Any] = {}
  for key in keys:
    *parents, name = key.name.split('.')
    node = values
    for parent in parents:
      node = node.setdefault(parent, {})
    node[name] = copy.deepcopy(key.default)
  return ConfigDict(values)


# How BAGEL samples when it edits an image.
BAGEL_SAMPLING = default_config().sampling.to_dict()
