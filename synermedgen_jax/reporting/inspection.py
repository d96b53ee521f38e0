"""Inspects volumes before they become slices, and writes a report."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from synermedgen_jax.config.cases import find_cases, ingest_settings
from synermedgen_jax.config.volume_flags import VolumeOptions
from synermedgen_jax.core.errors import naming
from synermedgen_jax.core.progress import each
from synermedgen_jax.inference.reading import Doubt, read_modality
from synermedgen_jax.inference.workdir import Trained
from synermedgen_jax.reporting.inspection_page import inspection_page, summary
from synermedgen_jax.slices import inspection
from synermedgen_jax.slices.datasets import CaseFiles
from synermedgen_jax.slices.inspection import CaseFacts
from synermedgen_jax.slices.prepare_store import person_of
from synermedgen_jax.slices.store_files import check_folder
from synermedgen_jax.slices.volumes import read_volume
from synermedgen_jax.slices.workers import run_jobs


def inspect_volumes(
  folder: Path, options: VolumeOptions, flag: str, reader: str = ''
) -> bool:
  """Checks every case, writes FOLDER/index.html, and prints a summary.

  Args:
    folder: folder of the report, without other files.
    options: flags that name the volumes and the settings of slices.
    flag: flag that names the folder, for messages.
    reader: run whose model reads which modality each volume shows; '' = none.

  Returns:
    Whether no case has a problem.

  Raises:
    UserError: a flag is wrong, or the folder has other files.
  """
  check_folder(folder, flag)
  settings, listing = ingest_settings(options), find_cases(options)
  folder.mkdir(parents=True, exist_ok=True)
  jobs = [(case.id, (case, settings)) for case in listing.cases]
  workers = max(min(options.workers, len(jobs)), 1)
  with contextlib.closing(
    run_jobs(inspection.inspect, jobs, workers, options.modules)
  ) as results:
    by_id = dict(each(results, 'check', len(jobs), 'case'))
  facts = [by_id[case.id] for case in listing.cases]
  if reader:
    facts = _with_readings(facts, listing.cases, reader)
  facts = inspection.with_shared_volumes(
    facts,
    {case.id: person_of(case) for case in listing.cases},
  )
  facts += inspection.layout_faults(listing.faults)
  page = folder / 'index.html'
  with naming(page):
    page.write_text(inspection_page(facts, settings.most_offset), 'utf-8')
  print(summary(facts))
  if advice := inspection.canvas_advice(facts, settings.slices):
    print(advice)
  print(page)
  return not any(case.problems for case in facts)


def _with_readings(
  facts: Sequence[CaseFacts], cases: Sequence[CaseFiles], reader: str
) -> list[CaseFacts]:
  """Adds what a model reads in each volume; doubts are problems or notes."""
  trained = Trained.load(reader)
  pairs = list(zip(facts, cases, strict=True))
  return [
    _with_reading(case, files, trained)
    for case, files in each(pairs, 'read', len(pairs), 'case')
  ]


def _with_reading(
  facts: CaseFacts, files: CaseFiles, trained: Trained
) -> CaseFacts:
  volumes, problems, notes = dict(facts.volumes), [], []
  for modality, volume_facts in facts.volumes.items():
    path, series = files.files[modality], files.series.get(modality, '')
    volume = read_volume(path, series=series)
    reading = read_modality(trained, volume, modality)
    volumes[modality] = dataclasses.replace(volume_facts, reading=str(reading))
    doubt = reading.doubt(modality)
    lines = problems if doubt is Doubt.OTHER_FAMILY else notes
    if doubt is not Doubt.NONE:
      lines.append(
        f'{path}: stated as {modality.label}, but the model reads {reading}.'
      )
  return dataclasses.replace(
    facts,
    volumes=volumes,
    problems=(*facts.problems, *problems),
    notes=(*facts.notes, *notes),
  )
