"""The benchmarks' rows are nearly full."""

import pytest

from benchmarks import shapes


@pytest.mark.parametrize(('model', 'stage'), shapes.ROWS)
def test_rows_are_more_than_nine_tenths_full(model, stage):
  config = shapes.stage_config(stage, model)
  batch = shapes.sampled_batch(config, shapes.model_shape(model))
  assert len(batch.token_ids) == config.rows
  for stream in (batch.und, batch.gen):
    if stream.order.shape[1]:
      assert (stream.example_ids > 0).mean() > 0.9
