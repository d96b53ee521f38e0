"""Reference numbers of BAGEL, and the packed rows they belong to.

The directory holds a small random-weight model in BAGEL's file format and
`golden.npz`: inputs, and what BAGEL's code computed of them in float32.
BAGEL_GOLDEN_DIR names another one.
"""

import functools
import json
import os
from pathlib import Path

import jax
import numpy as np

from synermedgen_jax.config.sampling import Guidance, SamplingConfig
from synermedgen_jax.core.batch import Capacity, PackedBatch
from synermedgen_jax.inference.sampling import Prompt, join_prompts
from synermedgen_jax.input import packing
from synermedgen_jax.input.tokenizer import Tokenizer
from synermedgen_jax.interop import bagel_configs, bagel_weights, key_table
from synermedgen_jax.models.bagel import Bagel
from synermedgen_jax.models.compute import Compute
from synermedgen_jax.tasks.example import text

DIRECTORY = Path(
  os.environ.get(
    'BAGEL_GOLDEN_DIR', Path(__file__).parent / 'data' / 'bagel_tiny'
  )
)

# What BAGEL's sampler was run with.
POINTS, SHIFT = 8, 3.0
SAMPLED = {
  'nocfg': Guidance(),
  'cfg_text_channel': Guidance(text=4.0, image=2.0, renorm='text_channel'),
  'cfg_global': Guidance(text=4.0, image=1.5, renorm='global'),
  'cfg_channel_interval': Guidance(
    text=3.0, interval=(0.4, 1.0), renorm='channel'
  ),
}


@functools.cache
def arrays() -> dict[str, np.ndarray]:
  with np.load(DIRECTORY / 'golden.npz') as file:
    return dict(file)


@functools.cache
def model() -> Bagel:
  shape = bagel_configs.bagel_config(DIRECTORY)
  return Bagel(shape, Compute(dtype='float32'))


@functools.cache
def params():
  return bagel_weights.load_params(DIRECTORY, model().config)


def train_shift() -> float:
  config = json.loads((DIRECTORY / 'config.json').read_text())
  return config['timestep_shift']


def to_picture(pixels: np.ndarray) -> np.ndarray:
  """(..., channel, row, column) as (..., row, column, channel)."""
  return np.moveaxis(pixels, -3, -1)


def image(i: int) -> np.ndarray:
  return to_picture(arrays()[f'image_{i}'])


class Ids(Tokenizer):
  """A tokenizer of texts that are ids in decimal digits."""

  def __init__(self):
    ids = arrays()['train_packed_text_ids'].tolist()
    question = len(arrays()['question_ids'])
    # Two images' markers, then the question between its own.
    self.vision_start, self.vision_end, _, _, self.im_start = ids[:5]
    self.im_end = ids[5 + question]

  def encode(self, words: str) -> list[int]:
    return [int(word) for word in words.split()]


def words(name: str) -> str:
  return ' '.join(map(str, arrays()[name]))


@functools.cache
def geometry():
  config = model().config
  sides = [image(i).shape[:2] for i in (2, 4)]  # those for the VAE
  return config.image_geometry(
    vit_size=(config.vit.patch, config.vit.patch),
    vae_size=np.max(sides, axis=0).tolist(),
  )


# The names of the task ids in `training_row`.
TASKS = ('cts', 'synthesis')


def _builder(task: str) -> packing.RowBuilder:
  return packing.RowBuilder(Ids(), geometry(), TASKS.index(task))


def _question() -> packing.RowBuilder:
  """Images 0 and 1 for the ViT, and the question."""
  row = _builder('cts')
  row.add_vit_image(image(0))
  row.add_vit_image(image(1))
  row.add_text(text(words('question_ids')))
  return row


def _edit(context: str = 'full') -> packing.RowBuilder:
  """Image 2 for the VAE, 3 for the ViT, the instruction, 4 noised."""
  row = _builder('synthesis')
  if context != 'no_images':
    row.add_vae_image(image(2))
    row.add_vit_image(image(3))
  if context != 'no_text':
    row.add_text(text(words('instruction_ids')))
  row.add_noised_images([(image(4), 0)])
  return row


def _exactly(*examples) -> Capacity:
  """A row that these features fill to the last place."""
  und, gen, vit, images = (
    sum(len(features[name]) for features in examples)
    for name in ('und', 'gen', 'vit', 'vae_images')
  )
  return Capacity(und, gen, vit, images)


def training_row() -> PackedBatch:
  """Both examples in one row: question and answer, then the edit."""
  question = _question()
  question.add_text(text(words('answer_ids'), has_loss=True))
  examples = [question.features(), _edit().features()]
  row = packing.finish_row(
    packing.concatenate_row(examples, _exactly(*examples)), geometry()
  )
  return packing.to_batch(jax.tree.map(lambda x: x[None], row), geometry())


def question_batch() -> PackedBatch:
  features = _question().features()
  return packing.pack_rows([features], _exactly(features), geometry())


def prompts(config: SamplingConfig) -> dict[str, Prompt]:
  """The edit without its target, for every context of the guidance."""
  packed = {}
  for context in config.guidance.contexts:
    features = _edit(context).features()
    packed[context] = join_prompts(
      [packing.split_target(features, geometry())],
      _exactly(features),
      geometry(),
    )
  return packed


def parameter_keys():
  """(BAGEL's key, row of the key table, layer) of the language model's file."""
  for entry in key_table.bagel_table(model().config):
    for layer, key in enumerate(entry.keys):
      yield key, entry, layer
