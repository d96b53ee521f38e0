"""Measures how well the small base draws pictures in the same or another style.

  python -m projects.small_base.base_drawings

For `copy` and `redraw` on validation scenes, with one Euler step: mean SSIM
over the full frame (2-D, Gaussian window of sigma 1.5, range [0, 1]) of the
drawn picture, of the source, and of the target through the autoencoder.
"""

import functools

import jax
import numpy as np
from absl import app, flags

from projects.small_base.scenes import questions
from projects.small_base.scenes.solids import SIDE
from projects.small_base.scenes.sources import SPLITS
from synermedgen_jax.checkpoint.weights_folder import load_weights
from synermedgen_jax.config.sampling import SamplingConfig
from synermedgen_jax.evaluation.routes import align
from synermedgen_jax.evaluation.ssim import slice_ssim_map
from synermedgen_jax.inference.sampling import (
  pack_prompts,
  prompt_capacity,
  sample,
)
from synermedgen_jax.input.tokenizer import project_tokenizer
from synermedgen_jax.models.bagel import Bagel
from synermedgen_jax.models.compute import Compute

_WEIGHTS = flags.DEFINE_string(
  'weights', 'weights/small', 'Weights folder of the base.'
)
_PICTURES = flags.DEFINE_integer(
  'pictures', 64, 'Number of pictures per task.', lower_bound=1
)


def _draw(model: Bagel, params, examples) -> np.ndarray:
  """Pictures that the base draws for the examples, (n, h, w)."""
  tokenizer = project_tokenizer()
  geometry = model.config.image_geometry(
    vit_size=(SIDE, SIDE), vae_size=(SIDE, SIDE)
  )
  capacity = prompt_capacity(examples, tokenizer, geometry, 'full')
  prompts = pack_prompts(
    examples, tokenizer, geometry, lambda ref: ref.read(), {'full': capacity}
  )
  shape = (len(examples), geometry.image_latents, model.config.latent_dim)
  noise = jax.random.normal(jax.random.key(0), shape)
  latents = sample(
    model, params, prompts, noise, SamplingConfig(points=2, shift=3.0)
  )
  grid = latents.reshape(len(examples), *geometry.latent_grid, -1)
  return _decode(model, params, grid)


def _decode(model: Bagel, params, grid) -> np.ndarray:
  decoded = model.apply({'params': params}, grid, method=Bagel.decode_latents)
  return np.clip(np.asarray(decoded)[..., 0], -1, 1)


def _ceiling(model: Bagel, params, images: np.ndarray) -> np.ndarray:
  grid = model.apply(
    {'params': params}, images[..., None], method=Bagel.encode_latents
  )
  return _decode(model, params, grid)


def _ssim(images: np.ndarray, truth: np.ndarray) -> str:
  x, y = (images + 1) / 2, (truth + 1) / 2
  return f'{slice_ssim_map(x, y, data_range=1.0).mean():.3f}'


def main(_) -> None:
  shape, params = load_weights(_WEIGHTS.value)
  model = Bagel(shape, Compute(dtype='float32'))
  rng = np.random.default_rng(0)
  rows = [('task', 'drawn', 'source', 'ceiling')]
  tasks = {
    'copy': questions.copy,
    'redraw': functools.partial(questions.redraw, telling=0.0),
  }
  for name, draw in tasks.items():
    examples = [draw(SPLITS['val'], rng) for _ in range(_PICTURES.value)]
    source = np.stack([e.spans[0].image.read() for e in examples])
    target = np.stack([e.spans[-1].image.read() for e in examples])
    drawn = _draw(model, params, examples)
    ceiling = _ceiling(model, params, target)
    scores = (_ssim(images, target) for images in (drawn, source, ceiling))
    rows.append((name, *scores))
  print(align(rows))


if __name__ == '__main__':
  app.run(main)
