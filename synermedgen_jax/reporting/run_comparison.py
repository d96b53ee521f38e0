"""The comparison of evaluated runs: its page and its plot."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from synermedgen_jax.core import files
from synermedgen_jax.evaluation import comparison
from synermedgen_jax.evaluation.comparison import ComparisonError
from synermedgen_jax.evaluation.subjects import FILE
from synermedgen_jax.reporting import pictures
from synermedgen_jax.reporting.comparison_chart import comparison_chart
from synermedgen_jax.reporting.comparison_table import markdown
from synermedgen_jax.reporting.study import Study, read_study

NOTES = '<!-- notes -->'


def compare_runs(
  root: Path,
  page: Path,
  plot: Path,
  *,
  study_file: Path | None,
  arms: Sequence[str],
  reference: str,
  resamples: int,
) -> str:
  """Writes the page and the plot; text of the page after `NOTES` is kept.

  Args:
    root: folder of the workdirs ROOT/SEED/ARM.
    page: Markdown file to write.
    plot: PNG file to write.
    study_file: titles, order and reference of the arms; None = no such file.
    arms: names of the arms; none = those of the study, or all.
    reference: arm that differences are taken from; '' = that of the study.
    resamples: number of bootstrap resamples.

  Returns:
    The page, without the notes.

  Raises:
    ComparisonError: there is no reference, or it has no scores.
  """
  study = read_study(study_file) if study_file else Study()
  reference = reference or study.reference
  if not reference:
    raise ComparisonError(
      '--reference: name the arm that differences are taken from.'
    )
  names = arms or list(study.arms) or _arms_in(root)
  arms = list(dict.fromkeys([*names, reference]))
  compared = comparison.compare(
    comparison.read_runs(root, arms),
    arms,
    reference=reference,
    resamples=resamples,
  )
  if not compared.results:
    raise ComparisonError(
      f'{root}: the reference arm {reference!r} has no scores of routes or '
      'tasks; run synermedgen_jax.evaluate on it.'
    )
  text = markdown(compared, study, os.path.relpath(plot, page.parent))
  notes = notes_of(page)
  files.write_bytes(plot, pictures.to_png(comparison_chart(compared, study)))
  files.write_text(page, f'{text}\n{notes}')
  return text


def notes_of(page: Path) -> str:
  """The part of a page that is kept when it is rewritten, with its mark."""
  if page.is_file():
    _, mark, kept = page.read_text('utf-8').partition(NOTES)
    if mark:
      return mark + kept
  return f'{NOTES}\n'


def _arms_in(root: Path) -> list[str]:
  """Names of the arms with an evaluation."""
  parts = (path.relative_to(root).parts for path in root.glob(f'*/*/{FILE}'))
  return sorted({arm for _, arm, *_ in parts})
