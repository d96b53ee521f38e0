"""Writes the slice store of a list of cases, in parallel processes.

    cases = folder_cases(Path('study'), dataset='study', region=Region.BRAIN)
    settings = PrepareSettings(Settings(SliceSpec(canvas=(256, 256))))
    store = prepare(cases, 'runs/store', settings)

After an interruption, the same call resumes where it stopped. On a finished
store, it only opens the store. `prepare_part` writes a share of the cases, so
that many machines can fill one store.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.progress import Bar, say
from synermedgen_jax.slices import ingest
from synermedgen_jax.slices.datasets import CaseFiles, join_problems
from synermedgen_jax.slices.splits import assign_case_splits, shared_volumes
from synermedgen_jax.slices.store import SliceStore, StoreWriter
from synermedgen_jax.slices.volumes import VolumeError
from synermedgen_jax.slices.workers import run_jobs

_LISTED = 10  # cases that a message names


@dataclasses.dataclass(frozen=True)
class PrepareSettings:
  """Settings of `prepare`.

  Attributes:
    ingest: settings that apply to every case.
    dataset: name of the data, recorded in the store.
    shift: name of the scanners of phantoms, recorded too; '' = not recorded.
    val, test: shares of subjects for validation and testing, in [0, 1).
    holdout: put all subjects into the split `holdout`.
    seed: random seed of the splits.
    workers: number of processes.
    skip_bad: skip cases that cannot be used, with a line on stderr, instead of
      raising.
    modules: Python modules that register modalities and regions of the cases;
      every process imports them.
  """

  ingest: ingest.Settings
  dataset: str = ''
  shift: str = ''
  val: float = 0.1
  test: float = 0.15
  holdout: bool = False
  seed: int = 0
  workers: int = 2
  skip_bad: bool = False
  modules: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Part:
  """A share of the cases: number `index` (from 1) of `count` parts."""

  index: int = 1
  count: int = 1

  def __post_init__(self):
    if not 1 <= self.index <= self.count:
      raise UserError(f'part {self}: expected K/N with 1 <= K <= N.')

  def __str__(self) -> str:
    return f'{self.index}/{self.count}'

  @classmethod
  def parse(cls, text: str) -> Part:
    """Reads K/N, such as 3/16; raises UserError for anything else."""
    index, slash, count = text.strip().partition('/')
    if not (slash and index.isdecimal() and count.isdecimal()):
      raise UserError(f'{text!r}: expected K/N, such as 3/16.')
    return cls(int(index), int(count))

  def of(self, ids: Sequence[str]) -> list[str]:
    """The ids of this part: every `count`-th in order."""
    return sorted(ids)[self.index - 1 :: self.count]


def prepare(
  cases: Sequence[CaseFiles], store: str | Path, settings: PrepareSettings
) -> SliceStore:
  """Writes the slices of all cases into a store and opens it.

  Skips misaligned cases, with a line on stderr.

  Args:
    cases: files of each case; ids must be unique.
    store: folder, or an address such as gs://BUCKET/STORE.
    settings: settings of the store.

  Returns:
    The finished store.

  Raises:
    UserError: a case occurs twice, the shares of splits do not fit, or a worker
      process ended.
    VolumeError: a file cannot be used or shows another person too and
      `skip_bad` is off, or no case can be used.
    StoreError: the store was started with other cases or settings.
  """
  prepare_part(cases, store, settings, Part())
  return SliceStore.open(str(store))


def prepare_part(
  cases: Sequence[CaseFiles],
  store: str | Path,
  settings: PrepareSettings,
  part: Part,
) -> list[str]:
  """Writes one part of the cases; finishes the store if nothing is missing.

  Parts may run in any order, at the same time, and again. The finished store
  does not depend on their number.

  Args:
    cases: files of every case of the store, not only of this part.
    store, settings: as in `prepare`; equal for all parts.
    part: the part to write.

  Returns:
    Sorted ids of the cases that other parts have still to write; empty if the
    store is finished.

  Raises:
    As `prepare`.
  """
  _check(cases, settings)
  ids = [case.id for case in cases]
  record = _record(cases, settings)
  writer = StoreWriter(str(store), record)
  if writer.finished:
    writer.check_splits(_split_record(cases, settings))
    return []
  _write_cases(writer, record, cases, settings, part)
  done, skipped = writer.done(ids), writer.skipped(ids)
  missing = sorted(set(ids) - done - skipped)
  if not missing:
    _finish(writer, [c for c in cases if c.id in done], cases, settings)
    writer.check_splits(_split_record(cases, settings))
  return missing


def _record(
  cases: Sequence[CaseFiles], settings: PrepareSettings
) -> dict[str, Any]:
  """Everything but the files that determines the cases, as JSON values."""
  record = {
    **settings.ingest.to_json(),
    'dataset': settings.dataset,
    'cases': sorted(case.id for case in cases),
    'sources': {
      'region': {case.id: case.region.value for case in cases},
      'reference': {c.id: list(c.reference) for c in cases if c.reference},
      'lesion_labels': {
        c.id: list(c.lesion_labels) for c in cases if c.lesion_labels != (1,)
      },
    },
  }
  if settings.shift:
    record['shift'] = settings.shift
  return record


def _check(cases: Sequence[CaseFiles], settings: PrepareSettings) -> None:
  """Raises for what is wrong before any file is read."""
  for case_id, count in collections.Counter(case.id for case in cases).items():
    if count > 1:
      raise UserError(f'case {case_id} occurs {count} times.')
  if not settings.skip_bad:
    problems = []
    for case in cases:
      try:
        ingest.check_modalities(case, settings.ingest)
      except VolumeError as error:
        problems.append(str(error))
    if problems:
      raise VolumeError(join_problems(problems))
  _splits(cases, settings)


def _splits(
  cases: Sequence[CaseFiles], settings: PrepareSettings
) -> dict[str, str]:
  """Case id -> split, given by the data or drawn within each dataset."""
  if settings.holdout:
    return {case.id: 'holdout' for case in cases}
  return assign_case_splits(
    {case.id: person_of(case) for case in cases},
    {case.id: case.dataset for case in cases},
    {case.id: case.split for case in cases if case.split},
    val=settings.val,
    test=settings.test,
    seed=settings.seed,
  )


def person_of(case: CaseFiles) -> str:
  """Name of the person that a case shows; its id if the data names none."""
  return case.patient or case.id


def _split_record(
  cases: Sequence[CaseFiles], settings: PrepareSettings
) -> dict[str, Any]:
  """Everything that determines the splits, as JSON values."""
  return {
    'val': settings.val,
    'test': settings.test,
    'holdout': settings.holdout,
    'seed': settings.seed,
    'given': {case.id: case.split for case in cases if case.split},
    'patients': {case.id: case.patient for case in cases if case.patient},
  }


def _write_case(
  path: str,
  record: Mapping[str, Any],
  files: CaseFiles,
  settings: ingest.Settings,
) -> VolumeError | None:
  """Writes one case, in a worker; returns the error of unusable files."""
  try:
    ingested = ingest.ingest(files, settings)
  except VolumeError as error:
    return error
  StoreWriter(path, record).write_case(
    ingested.case, ingested.volumes, ingested.mask
  )
  return None


def _write_cases(
  writer: StoreWriter,
  record: Mapping[str, Any],
  cases: Sequence[CaseFiles],
  settings: PrepareSettings,
  part: Part,
) -> None:
  """Writes the cases of a part that the store lacks, or records why not.

  Cases that an earlier call skipped are tried again.
  """
  by_id = {case.id: case for case in cases}
  own = part.of([*by_id])
  done = writer.done(own)
  jobs = [
    (case_id, (writer.path, record, by_id[case_id], settings.ingest))
    for case_id in own
    if case_id not in done
  ]
  workers = max(min(settings.workers, len(jobs)), 1)
  with (
    Bar('store', len(own), 'case', done=len(done)) as bar,
    contextlib.closing(
      run_jobs(_write_case, jobs, workers, settings.modules)
    ) as results,
  ):
    for case_id, problem in results:
      if problem:
        misaligned = isinstance(problem, ingest.MisalignedError)
        if not (settings.skip_bad or misaligned):
          raise problem
        writer.skip_case(case_id, str(problem))
        say(f'Skipped {case_id}: {problem}')
      bar.update()


def _finish(
  writer: StoreWriter,
  done: Sequence[CaseFiles],
  cases: Sequence[CaseFiles],
  settings: PrepareSettings,
) -> None:
  """Draws the splits of the usable cases and finishes the store.

  Another part may do the same at this moment: it writes the same bytes. A store
  that another part has finished stays as it is, although a case that was
  skipped may have been written since.
  """
  stored = writer.read_cases(case.id for case in done)  # takes a while
  if writer.finished:
    say('Another part has finished the store, with the cases of that moment.')
    return
  shared = shared_volumes(
    {case.id: case.checksums for case in stored},
    {case.id: person_of(case) for case in done},
  )
  if shared and not settings.skip_bad:
    lines = [f'{case_id}: {reason}' for case_id, reason in shared.items()]
    raise VolumeError(join_problems(lines))
  for case_id, reason in shared.items():
    writer.skip_case(case_id, reason)
    print(f'Skipped {case_id}: {reason}', file=sys.stderr)
  kept = [case for case in done if case.id not in shared]
  if not kept:
    raise VolumeError(f'{writer.path}: no subject can be used.')
  writer.finish(_splits(kept, settings), _split_record(cases, settings))


def summary(
  store: str, ids: Sequence[str], part: Part, missing: Sequence[str]
) -> str:
  """The lines that report a written part; the last one is the store.

  Args:
    store: folder or address of the store.
    ids: all cases of the store.
    part: the part that was written.
    missing: cases of other parts that are not written; none = the store is
      finished.
  """
  if missing:
    parts = [Part(k, part.count) for k in range(1, part.count + 1)]
    unwritten = [p for p in parts if not set(missing).isdisjoint(p.of(ids))]
    named = ', '.join(missing[:_LISTED])
    return (
      f'Part {part} is written. {len(missing)} of {len(ids)} cases are '
      f'missing, of the parts {", ".join(map(str, unwritten))}: '
      f'{named}{", ..." if missing[_LISTED:] else ""}\n{store}'
    )
  cases = SliceStore.open(store).cases
  groups = collections.defaultdict(list)
  for case in cases:
    groups[case.dataset, case.split].append(len(case.usable))
  lines = [f'Store: {len(cases)} cases, finished.']
  for (dataset, split), slices in sorted(groups.items()):
    counts = f'{len(slices):4} subjects {sum(slices):6} slices'
    lines.append(f'  {dataset:<12} {split:<8} {counts}')
  return '\n'.join([*lines, store])
