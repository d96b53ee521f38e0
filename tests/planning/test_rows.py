"""Rows that stand for those of a run."""

import dataclasses

import numpy as np
import pytest

from synermedgen_jax.core.batch import Capacity
from synermedgen_jax.input.row_sizes import ExampleTooLarge
from synermedgen_jax.input.tokenizer import project_tokenizer
from synermedgen_jax.models.presets import preset
from synermedgen_jax.planning.rows import sample_rows
from synermedgen_jax.tasks.prompts import SHORT

GEOMETRY = preset('small').image_geometry(vit_size=(64, 64), vae_size=(64, 64))
# One synthesis from three sources.
ROOM = Capacity(und=39, gen=256, vit=12, images=4)


def rows(room=ROOM, **options):
  return sample_rows(
    {'synthesis': 1.0},
    SHORT,
    project_tokenizer(),
    GEOMETRY,
    room,
    rows=24,
    **options,
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
