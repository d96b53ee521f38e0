"""The report's table of understanding tasks."""

from synermedgen_jax.evaluation import understanding
from synermedgen_jax.reporting.page_tables import task_table


def test_a_task_is_followed_by_its_facts():
  records = [
    {
      'task': 'description',
      'answer': 'axial CT of the brain',
      'prediction': 'coronal CT of the brain',
    }
  ]
  table = task_table(understanding.score(records))
  assert table.rows == [
    [
      'DESCRIPTION, description in words',
      '<b>0.667</b>',
      '1.000',
      '3 facts',
      'all facts of a question right: 0.000',
    ],
    ['DESCRIPTION: modality', '<b>1.000</b>', '1.000', '1 facts', ''],
    ['DESCRIPTION: region', '<b>1.000</b>', '1.000', '1 facts', ''],
    ['DESCRIPTION: plane', '<b>0.000</b>', '1.000', '1 facts', ''],
  ]
