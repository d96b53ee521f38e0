"""The measurements of the base run, at sizes too small for real figures."""

import pytest
from commands import printed

from projects.small_base.scenes import styles
from synermedgen_jax.slices.store import SliceStore


@pytest.mark.slow
def test_every_modality_starts_as_a_style_of_its_own(store_path):
  heading, *rows = printed(
    'projects.small_base.first_looks', f'--store={store_path}', '--questions=1'
  )
  assert heading.split()[:-2] == list(styles.NAMES)
  shown = SliceStore.open(store_path).split('train')
  labels = {m.label for case in shown for m in case.modalities}
  assert {row.partition('  ')[0] for row in rows} == labels
  starts = [row.split()[-1] for row in rows]
  assert set(starts) <= set(styles.NAMES)
  assert len(set(starts)) == len(starts)


@pytest.mark.slow
def test_drawings_score_below_the_autoencoder():
  heading, *rows = printed('projects.small_base.base_drawings', '--pictures=2')
  assert heading.split() == ['task', 'drawn', 'source', 'ceiling']
  assert [row.split()[0] for row in rows] == ['copy', 'redraw']
  drawn, source, ceiling = map(float, rows[0].split()[1:])
  assert source == 1  # a copy's source is its target
  assert 0 < drawn < ceiling < 1
