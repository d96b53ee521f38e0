"""Rows that stand for those of a run."""

import dataclasses

import jax
import numpy as np
import pytest

from configs.small.stage2 import get_config
from synermedgen_jax.core.batch import Capacity
from synermedgen_jax.input.mixture import Dropout, Mixture
from synermedgen_jax.input.row_sizes import ExampleTooLarge
from synermedgen_jax.input.tokenizer import project_tokenizer
from synermedgen_jax.models.presets import preset
from synermedgen_jax.planning.rows import sample_rows, sample_rows_of
from synermedgen_jax.tasks.prompts import SHORT
from synermedgen_jax.training.build import build

GEOMETRY = preset('small').image_geometry(vit_size=(64, 64), vae_size=(64, 64))
NO_DROPOUT = Dropout()
# One synthesis from three sources.
ROOM = Capacity(und=39, gen=256, vit=12, images=4)


def rows(room=ROOM, dropout=NO_DROPOUT, **mixture):
  return sample_rows(
    Mixture({'synthesis': 1.0}, SHORT, **mixture),
    project_tokenizer(),
    GEOMETRY,
    room,
    rows=24,
    dropout=dropout,
  )


def images(batch):
  """Number of VAE images of every row."""
  canvas = batch.latent_index // GEOMETRY.image_latents
  used = batch.gen.example_ids > 0
  return [len(set(c[u])) for c, u in zip(canvas, used, strict=True)]


def test_rows_have_as_many_sources_as_the_run_draws():
  assert set(images(rows(Capacity(20, 128, 4, 2)))) == {2}
  assert {2, 3, 4} >= set(images(rows(max_sources=3))) >= {3, 4}
  name = 'brats_t1+t2+flair_to_t1ce'
  assert set(images(rows(routes=(name,)))) == {4}


@pytest.mark.parametrize('field', ['und', 'gen', 'vit', 'images'])
def test_a_capacity_that_cannot_hold_the_sources_is_refused(field):
  less = getattr(ROOM, field) - 1
  small = dataclasses.replace(ROOM, **{field: less})
  with pytest.raises(
    ExampleTooLarge, match=rf'{field} is {less}, but an example of .* needs '
  ):
    rows(small, max_sources=3)


def test_rows_of_named_routes_are_of_them_alone():
  batch = rows(Capacity(26, 128, 4, 2), routes=('heart_t2_to_lge',))
  text = project_tokenizer().encode('heart')
  used = np.asarray(batch.token_ids)
  assert all(np.isin(text, row).all() for row in used)


def test_routes_are_drawn_by_their_weights():
  room, text = Capacity(20, 128, 4, 2), project_tokenizer().encode('pelvis')

  def pelves(batch):
    return sum(np.isin(text, row).all() for row in np.asarray(batch.token_ids))

  assert pelves(rows(room)) < 12
  # Grain gives even the rarest part of a mix one of the first places.
  assert pelves(rows(room, route_weights=[('pelvis_.*', 1e6)])) >= 23


def test_a_slab_has_the_source_and_target_of_every_slice():
  room = Capacity(und=3 * 20, gen=3 * 128, vit=3 * 4, images=3 * 2)
  assert set(images(rows(room, slab=3))) == {6}


def test_dropped_sources_and_texts_leave_tokens_to_other_examples():
  room = Capacity(20, 128, 4, 2)
  # Rows of two targets without a source, and no word of an instruction.
  dropped = rows(room, dropout=Dropout(text=1.0, vae=1.0, vit=1.0))
  assert set(images(dropped)) == {2}
  assert (np.asarray(dropped.und.example_ids) > 0).sum() < (
    np.asarray(rows(room).und.example_ids) > 0
  ).sum()


def test_rows_of_a_run_have_its_dropout_and_slab():
  config = get_config()
  config.mesh, config.rows = (1, 1, 1), 1
  config.slab = 3
  config.capacity = {'und': 60, 'gen': 384, 'vit': 12, 'images': 6}
  config.dropout = {'text': 0.0, 'vae': 0.0, 'vit': 0.0}
  run = build(config, devices=jax.devices()[:1], data=False)
  assert set(images(sample_rows_of(run, rows=8))) == {6}
  config.dropout = {'text': 0.0, 'vae': 1.0, 'vit': 0.0}
  run = build(config, devices=jax.devices()[:1], data=False)
  assert set(images(sample_rows_of(run, rows=8))) == {3}
