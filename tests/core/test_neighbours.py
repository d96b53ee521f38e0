"""Paths that are suggested for mistyped ones."""

from synermedgen_jax.core.neighbours import did_you_mean


def test_the_nearest_existing_path_is_suggested(tmp_path):
  (tmp_path / 'runs/demo/detail').mkdir(parents=True)
  (tmp_path / 'runs/demo/stage1').mkdir()
  runs = tmp_path / 'runs'
  assert did_you_mean(runs / 'dmeo/detail') == (
    f' Did you mean {runs}/demo/detail?'
  )
  assert did_you_mean(runs / 'demo/stage2') == (
    f' Did you mean {runs}/demo/stage1?'
  )
  assert did_you_mean(runs / 'other/detail') == ''
  assert did_you_mean(runs / 'dmeo/gone') == ''
  assert did_you_mean(runs / 'demo/detail') == ''
  assert did_you_mean('gs://bucket/run') == ''
