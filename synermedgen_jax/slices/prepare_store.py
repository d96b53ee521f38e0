"""Writes the slice store of a list of cases, in parallel processes.

    cases = folder_cases(Path('study'), dataset='study', region=Region.BRAIN)
    settings = PrepareSettings(Settings(SliceSpec(canvas=256)))
    store = prepare(cases, 'runs/store', settings)

After an interruption, the same call resumes where it stopped. On a finished
store, it only opens the store.
"""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import itertools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from synermedgen_jax.core.errors import UserError
from synermedgen_jax.slices import ingest
from synermedgen_jax.slices.datasets import CaseFiles
from synermedgen_jax.slices.splits import assign_case_splits
from synermedgen_jax.slices.store import SliceStore, StoreWriter
from synermedgen_jax.slices.volumes import VolumeError
from synermedgen_jax.slices.workers import processes


@dataclasses.dataclass(frozen=True)
class PrepareSettings:
  """Settings of `prepare`.

  Attributes:
    ingest: settings that apply to every case.
    dataset: name of the data, recorded in the store.
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
  val: float = 0.1
  test: float = 0.15
  holdout: bool = False
  seed: int = 0
  workers: int = 2
  skip_bad: bool = False
  modules: tuple[str, ...] = ()


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
    UserError: a case occurs twice, or the shares of splits do not fit.
    VolumeError: a file cannot be used and `skip_bad` is off, or no case can be
      used.
    StoreError: the store was started with other cases or settings.
  """
  for case_id, count in collections.Counter(case.id for case in cases).items():
    if count > 1:
      raise UserError(f'case {case_id} occurs {count} times.')
  if not settings.skip_bad:
    for case in cases:
      ingest.check_modalities(case, settings.ingest)
  splits = _splits(cases, settings)
  record = {
    **settings.ingest.to_json(),
    'dataset': settings.dataset,
    'cases': {case.id: splits[case.id] for case in cases},
  }
  writer = StoreWriter(str(store), record)
  if not writer.finished:
    bad = _write_cases(writer, str(store), record, cases, splits, settings)
    if len(bad) == len(cases):
      raise VolumeError(f'{store}: no subject can be used.')
    writer.finish(case.id for case in cases if case.id not in bad)
  return SliceStore.open(str(store))


def _splits(
  cases: Sequence[CaseFiles], settings: PrepareSettings
) -> dict[str, str]:
  """Case id -> split, given by the data or drawn within each dataset."""
  if settings.holdout:
    return {case.id: 'holdout' for case in cases}
  return assign_case_splits(
    {case.id: case.patient or case.id for case in cases},
    {case.id: case.dataset for case in cases},
    {case.id: case.split for case in cases if case.split},
    val=settings.val,
    test=settings.test,
    seed=settings.seed,
  )


def _write_case(
  path: str,
  record: Mapping[str, Any],
  files: CaseFiles,
  split: str,
  settings: ingest.Settings,
) -> VolumeError | None:
  """Writes one case, in a worker; returns the error of unusable files."""
  try:
    ingested = ingest.ingest(files, split, settings)
  except VolumeError as error:
    return error
  StoreWriter(path, record).write_case(
    ingested.case, ingested.volumes, ingested.mask
  )
  return None


def _write_cases(
  writer: StoreWriter,
  path: str,
  record: Mapping[str, Any],
  cases: Sequence[CaseFiles],
  splits: Mapping[str, str],
  settings: PrepareSettings,
) -> set[str]:
  """Writes the cases that the store lacks; returns ids of skipped cases."""
  done = writer.done()
  jobs = iter([case for case in cases if case.id not in done])
  bad = set()
  with (
    tqdm(total=len(cases), initial=len(done), desc='store', unit='case') as bar,
    processes(settings.workers, settings.modules) as pool,
  ):
    futures = {}
    while True:
      for case in itertools.islice(jobs, 4 * settings.workers - len(futures)):
        job = (path, record, case, splits[case.id], settings.ingest)
        futures[pool.submit(_write_case, *job)] = case
      if not futures:
        return bad
      finished, _ = concurrent.futures.wait(
        futures, return_when=concurrent.futures.FIRST_COMPLETED
      )
      for future in finished:
        case, problem = futures.pop(future), future.result()
        misaligned = isinstance(problem, ingest.MisalignedError)
        if problem and not (settings.skip_bad or misaligned):
          pool.shutdown(cancel_futures=True)
          raise problem
        if problem:
          bad.add(case.id)
          bar.write(f'Skipped {case.id}: {problem}', file=sys.stderr)
        bar.update()
