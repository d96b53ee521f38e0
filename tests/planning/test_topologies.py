"""Names of TPU slices, as they are rented."""

import math

import pytest

from synermedgen_jax.core.chips import V5E, V5P, V6E
from synermedgen_jax.planning.topologies import SLICES


@pytest.mark.parametrize(
  ('name', 'chip', 'chips'),
  [
    ('v5e-4', V5E, 4),
    ('v5e-256', V5E, 256),
    ('v6e-64', V6E, 64),
    ('v5p-8', V5P, 4),  # two cores per chip
    ('v5p-64', V5P, 32),
    ('v5p-1024', V5P, 512),
  ],
)
def test_a_slice_has_the_chips_of_its_rented_name(name, chip, chips):
  kind, sides = SLICES[name]
  assert kind == chip
  assert math.prod(sides) == chips
