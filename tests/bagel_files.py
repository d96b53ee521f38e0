"""A folder of BAGEL's files that tests may damage."""

import json
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from synermedgen_jax.input.tokenizer import project_tokenizer

TINY = Path(__file__).parent / 'data' / 'bagel_tiny'


def copy(folder: Path) -> Path:
  """The tiny model's files in a folder of their own."""
  folder.mkdir()
  for path in TINY.iterdir():
    if path.suffix != '.npz':
      shutil.copy(path, folder)
  return folder


def with_tokenizer(folder: Path) -> Path:
  """The tiny model's files with the project's tokenizer and its vocabulary.

  The tiny model embeds 256 tokens, fewer than any byte-level tokenizer has.
  """
  copy(folder)
  tokenizer = project_tokenizer()
  size = tokenizer.vocab_size
  change(folder / 'llm_config.json', vocab_size=size)

  def widen(weights):
    for name in ('lm_head', 'model.embed_tokens'):
      key = f'language_model.{name}.weight'
      weights[key] = np.resize(weights[key], (size, weights[key].shape[1]))

  edit_weights(folder / 'ema.safetensors', widen)
  (folder / 'tokenizer.json').write_text(tokenizer.__reduce__()[1][0])
  return folder


def as_unimedvl(folder: Path) -> Path:
  """Arranges files as UniMedVL does: no config.json, a copy of the VAE."""
  (folder / 'config.json').unlink()
  autoencoder = load_file(folder / 'ae.safetensors')

  def edit(weights):
    for name, side in (('vit', 70), ('latent', 64)):
      key = f'{name}_pos_embed.pos_embed'
      weights[key] = np.resize(weights[key], (side**2, weights[key].shape[1]))
    weights.update({f'vae_model.{k}': v for k, v in autoencoder.items()})

  edit_weights(folder / 'ema.safetensors', edit)
  return folder


def change(path: Path, **values) -> None:
  """Sets options of a JSON file."""
  path.write_text(json.dumps(json.loads(path.read_text()) | values))


def shard(folder: Path, index: str = 'ema.safetensors.index.json') -> None:
  """The language model's file as two, with an index."""
  whole = folder / 'ema.safetensors'
  weights = load_file(whole)
  whole.unlink()
  names = ('model-1-of-2.safetensors', 'model-2-of-2.safetensors')
  keys = sorted(weights)
  parts = dict(zip(names, (keys[::2], keys[1::2]), strict=True))
  for name, part in parts.items():
    save_file({key: weights[key] for key in part}, folder / name)
  places = {key: name for name, part in parts.items() for key in part}
  (folder / index).write_text(json.dumps({'weight_map': places}))


def edit_weights(path: Path, edit) -> None:
  """Rewrites a safetensors file after `edit(weights)`."""
  weights = load_file(path)
  edit(weights)
  save_file(weights, path)
