"""The names that flags list are those of the tables."""

from synermedgen_jax.core import choices
from synermedgen_jax.evaluation.volume_scores import VOLUME_SCORES
from synermedgen_jax.phantoms.shifts import SHIFTS
from synermedgen_jax.slices import public_datasets
from synermedgen_jax.slices.grids import PLANES
from synermedgen_jax.slices.layouts import LAYOUTS


def test_the_names_in_flags_are_those_of_the_tables():
  assert tuple(PLANES) == choices.PLANES
  assert tuple(SHIFTS) == choices.SHIFTS
  assert tuple(LAYOUTS) == choices.LAYOUTS
  assert tuple(VOLUME_SCORES) == choices.VOLUME_SCORES
  own = [
    name
    for name, dataset in public_datasets.PUBLIC_DATASETS.items()
    # Other tests register further ones.
    if dataset.find.__module__ == public_datasets.__name__
  ]
  assert tuple(own) == choices.PUBLIC_DATASETS
