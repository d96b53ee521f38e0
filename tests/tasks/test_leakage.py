"""No text of any task says which case, file or slice it is about."""

import numpy as np
import pytest
from hypothesis import given
from task_fakes import pairs, seeds, texts

from synermedgen_jax.core.modalities import Modality
from synermedgen_jax.tasks import cts, mi, synthesis, tia


def build_mi(case, route, index, rng):
  panels = [(case, m, index) for m in (route.source, route.target) * 2]
  return mi.build(panels, rng)


@pytest.mark.parametrize(
  'build', [cts.build, build_mi, tia.build, synthesis.build]
)
@given(pairs(), seeds)
def test_no_text_names_a_case_or_slice(build, pair, seed):
  case, _, _ = pair
  for words in texts(build(*pair, np.random.default_rng(seed))):
    for name in (case.id, case.dataset, case.subject, case.split):
      assert name not in words
    for modality in sorted(Modality, key=lambda m: -len(m.label)):
      words = words.replace(modality.label, '')
    assert not any(c.isdigit() or c in '/\\_.:' for c in words.strip('.'))
