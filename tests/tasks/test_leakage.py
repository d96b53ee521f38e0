"""No text of a task names its case, file or slice."""

import pytest
from hypothesis import given
from task_fakes import build, pairs, seeds, texts, wordings

from synermedgen_jax.core.modalities import Modality
from synermedgen_jax.tasks import cts, description, mi, synthesis, tia


@pytest.mark.parametrize('task', [cts, description, mi, tia, synthesis])
@given(pairs(), seeds, wordings)
def test_no_text_names_a_case_or_slice(task, pair, seed, prompts):
  case = pair.case
  for words in texts(build(task, pair, seed, prompts=prompts)):
    for name in (case.id, case.dataset, case.subject, case.split):
      assert name not in words
    for modality in sorted(Modality, key=lambda m: -len(m.label)):
      words = words.replace(modality.label, '')
    words = words.rstrip('.').replace('. ', ' ')  # ends of sentences
    assert not any(c.isdigit() or c in '/\\_.:' for c in words)
