"""Shift and scale of the latents of a new autoencoder."""

import functools

import jax
import nano
import numpy as np
import pytest

from synermedgen_jax.core.batch import Capacity
from synermedgen_jax.core.modalities import Modality
from synermedgen_jax.core.sharding import make_mesh
from synermedgen_jax.core.trees import flatten
from synermedgen_jax.input import packing
from synermedgen_jax.input.tokenizer import project_tokenizer
from synermedgen_jax.models.bagel import Bagel
from synermedgen_jax.tasks.example import Example, SliceRef, vae_image
from synermedgen_jax.training.calibration import calibrate_latents
from synermedgen_jax.training.train_state import TrainState

pytestmark = pytest.mark.usefixtures('quick_compiles')


def slices(*shape):
  rng = np.random.default_rng(0)
  return rng.uniform(-1, 1, (*shape, 16, 16)).astype(np.float32)


def batch_of(rows, canvases):
  """Rows of these images, (b, n, h, w), with room for `canvases` of them."""

  def features(images):
    refs = [SliceRef('case', Modality.CT, i) for i in range(len(images))]
    return packing.tokenise(
      Example('reconstruction', tuple(map(vae_image, refs))),
      project_tokenizer(),
      nano.GEOMETRY,
      lambda ref: images[ref.index],
    )

  tokens = nano.GEOMETRY.image_latents
  room = Capacity(2 * canvases, tokens * canvases, 0, canvases)
  return packing.pack_rows(list(map(features, rows)), room, nano.GEOMETRY)


@functools.cache
def state():
  frozen = flatten(nano.initial_params())
  return TrainState(step=0, trainable={}, frozen=frozen, opt_state=(), ema={})


def calibrated(batches):
  mesh = make_mesh((1, 1, 1), jax.devices()[:1])
  return calibrate_latents(
    nano.BAGEL, state(), iter(batches), mesh, batches=len(batches)
  )


@jax.jit
def latents(params, images):
  flat = images.reshape(-1, 16, 16, 1)
  return nano.BAGEL.apply({'params': params}, flat, method=Bagel.encode_latents)


def constants(state):
  names = ('latent_shift', 'latent_scale')
  return [np.asarray(state.frozen[f'autoencoder/{name}']) for name in names]


def test_latents_are_shifted_and_scaled_to_unit_variance():
  images = slices(4, 2, 3)
  after = calibrated([batch_of(rows, 3) for rows in images])
  assert abs(latents(state().params, images).std() - 1) > 0.01
  np.testing.assert_allclose(latents(after.params, images).mean(), 0, atol=1e-4)
  np.testing.assert_allclose(latents(after.params, images).std(), 1, atol=1e-4)


def test_canvases_without_an_image_change_nothing():
  rows = slices(2, 1)
  full, padded = (calibrated([batch_of(rows, n)]) for n in (1, 3))
  np.testing.assert_allclose(constants(padded), constants(full), rtol=1e-5)


def test_every_image_counts_alike_in_batches_of_any_fill():
  images = slices(1, 4)
  apart = [batch_of(images[:, :1], 3), batch_of(images[:, 1:], 3)]
  together = calibrated([batch_of(images, 4)])
  np.testing.assert_allclose(
    constants(calibrated(apart)), constants(together), rtol=1e-5
  )
