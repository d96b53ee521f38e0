"""Measures the speed of slices from disk to packed rows.

  python -m benchmarks.input_pipeline --store=runs/demo/store \\
      --root=runs/demo/phantoms/brain

* `prepare` on a case (read, resample, window, mask, write), with and without
  the check of alignment: slices per CPU second, next to a loop that only reads
  the same files with nibabel.
* Random slices: milliseconds from the store, one by one and 64 at once, and
  from the `.nii.gz` files.
* The training pipeline of each stage with one thread: examples and tokens per
  second, fill of the two streams, and milliseconds of a batch and of its step.
  The batch costs nothing if the step takes longer.
* A manifest of a million pairs, and the sampler of four tasks over it: seconds
  and memory.
"""

import json
import resource
import statistics
import tempfile
import time
from pathlib import Path

import jax
import nibabel as nib
import numpy as np
from absl import app, flags

from benchmarks import stages
from synermedgen_jax.core.modalities import Region
from synermedgen_jax.core.sharding import batch_sharding
from synermedgen_jax.core.size import parse_size
from synermedgen_jax.input.pipeline import example_dataset
from synermedgen_jax.slices.datasets import CaseFiles, folder_cases
from synermedgen_jax.slices.framing import SliceSpec
from synermedgen_jax.slices.ingest import Settings, ingest
from synermedgen_jax.slices.store import VERSION, SliceStore, StoreWriter
from synermedgen_jax.slices.tables import csv_cases
from synermedgen_jax.tasks.pairs import Pool
from synermedgen_jax.tasks.registry import TASKS
from synermedgen_jax.training import loop
from synermedgen_jax.training.build import build

_STORE = flags.DEFINE_string('store', 'runs/demo/store', 'Slice store.')
_ROOT = flags.DEFINE_string(
  'root',
  'runs/demo/phantoms/brain',
  'Subject folders that the store is from, or a table of their files.',
)
_REGION = flags.DEFINE_string('region', 'brain', 'Region of these subjects.')
_CASES = flags.DEFINE_integer('cases', 6, 'Number of subjects to prepare.')
_CANVAS = flags.DEFINE_string('canvas', '256', 'Canvas of `prepare`.')
_PAIRS = flags.DEFINE_integer(
  'pairs', 1_000_000, 'Number of pairs of the large manifest.'
)
_READS = 640
_AT_ONCE = 64
_BATCHES = 30


def _slices(arrays) -> int:
  return sum(len(a) for a in arrays)


def _prepare(cases: list[CaseFiles]) -> None:
  start, count = time.process_time(), 0
  for case in cases:
    for path in case.files.values():
      count += nib.load(path).get_fdata(dtype=np.float32).shape[2]
  plain = count / (time.process_time() - start)
  reference = tuple(sorted(cases[0].files))[:1]
  for most_offset in (0.0, 6.0):
    settings = Settings(
      SliceSpec(parse_size(_CANVAS.value)),
      reference=reference,
      most_offset=most_offset,
    )
    with tempfile.TemporaryDirectory() as folder:
      writer = StoreWriter(f'{folder}/store', settings.slices.to_json())
      start, written = time.process_time(), 0
      for case in cases:
        ingested = ingest(case, settings)
        writer.write_case(ingested.case, ingested.volumes, ingested.mask)
        written += _slices(ingested.volumes.values())
      ours = written / (time.process_time() - start)
    check = 'with' if most_offset else 'without'
    print(
      f'prepare, canvas {_CANVAS.value}, {check} the offset check: '
      f'{ours:,.0f} slices per CPU second; nibabel alone, reading only: '
      f'{plain:,.0f}; {ours / plain:.2f} of it'
    )


def _opened(store: SliceStore, picks) -> SliceStore:
  """The store with open arrays, of which none of the slices is in the cache."""
  store = SliceStore.open(store.path)
  arrays = {(case.id, modality): index for case, modality, index in picks}
  taken = {(case.id, modality, index) for case, modality, index in picks}
  for case_id, modality in arrays:
    unread = range(store.case(case_id).shape[0])
    free = (i for i in unread if (case_id, modality, i) not in taken)
    store.read_slice(case_id, modality, next(free, 0))
  return store


def _random_slices(store: SliceStore, cases: list[CaseFiles]) -> None:
  rng = np.random.default_rng(0)
  by_subject = {c.subject: c for c in cases}
  stored = [c for c in store.cases if c.subject in by_subject]
  if not stored:
    print('random slices: --root and --store share no subject.')
    return
  picks = []
  for _ in range(_READS):
    case = stored[rng.integers(len(stored))]
    names = list(case.modalities)
    modality = names[rng.integers(len(names))]
    picks.append((case, modality, int(rng.integers(case.shape[0]))))
  store = _opened(store, picks)
  start = time.perf_counter()
  for case, modality, index in picks:
    store.read_slice(case.id, modality, index)
  ours = (time.perf_counter() - start) / len(picks)
  store = _opened(store, picks)
  start = time.perf_counter()
  for first in range(0, len(picks), _AT_ONCE):
    store.read_slices(
      [(c.id, m, i) for c, m, i in picks[first : first + _AT_ONCE]]
    )
  at_once = (time.perf_counter() - start) / len(picks)
  start = time.perf_counter()
  few = picks[: _READS // 10]
  for case, modality, index in few:
    image = nib.load(by_subject[case.subject].files[modality])
    np.asarray(image.dataobj[..., min(index, image.shape[2] - 1)])
  files = (time.perf_counter() - start) / len(few)
  print(
    f'random slice: {1e3 * ours:.2f} ms from the store, {1e3 * at_once:.2f} ms '
    f'of {_AT_ONCE} at once, {1e3 * files:.1f} ms from .nii.gz: '
    f'{files / ours:.0f} and {files / at_once:.0f} times faster'
  )


def _step_seconds(run: loop.Run, batch) -> float:
  state = run.create()
  step = jax.jit(loop.make_train_step(run.model, run.tx, run.step))
  batch = loop.to_devices(batch, batch_sharding(run.mesh))
  jax.block_until_ready(step(state, batch))
  times = []
  for _ in range(10):
    start = time.perf_counter()
    jax.block_until_ready(step(state, batch))
    times.append(time.perf_counter() - start)
  return statistics.median(times)


def _pipeline(store: SliceStore, name: str) -> None:
  config = stages.stage_config(name, 'tiny')
  config.store, config.from_scratch = store.path, True
  config.streams = config.reader_threads = 1
  run = build(config, devices=jax.devices()[:1])
  batches = iter(run.data)
  next(batches)
  examples = und = gen = 0
  start = time.perf_counter()
  for _ in range(_BATCHES):
    batch = next(batches)
    ids = np.concatenate([batch.und.example_ids, batch.gen.example_ids], 1)
    examples += int(ids.max(1).sum())
    und += int((batch.und.example_ids > 0).sum())
    gen += int((batch.gen.example_ids > 0).sum())
  seconds = time.perf_counter() - start
  places = _BATCHES * run.rows
  fill = [f'und {und / places / run.capacity.und:.0%}']
  if run.capacity.gen:
    fill.append(f'gen {gen / places / run.capacity.gen:.0%}')
  step = _step_seconds(run, batch)
  read = seconds / _BATCHES
  print(
    f'{name:<12} {examples / seconds:>7,.0f} examples/s '
    f'{(und + gen) / seconds:>9,.0f} tokens/s, filled: {", ".join(fill)}; a '
    f'batch {1e3 * read:.0f} ms, its step {1e3 * step:.0f} ms'
  )


def _large_manifest(store: SliceStore, folder: Path) -> int:
  """Writes a store of `--pairs` pairs without voxels; returns their number."""
  count = cases = 0
  with (folder / 'manifest.jsonl').open('w') as file:
    while count < _PAIRS.value:
      for case in store.cases:
        row = case.to_json() | {'id': f'{case.id}.{cases}', 'split': 'train'}
        file.write(json.dumps(row) + '\n')
        count += len(case.routes) * len(case.usable)
        cases += 1
  for name, record in (
    ('settings.json', store.slices.to_json()),
    ('store.json', {'version': VERSION, 'cases': cases}),
  ):
    (folder / name).write_text(json.dumps(record))
  return count


def _scale(store: SliceStore) -> None:
  with tempfile.TemporaryDirectory() as folder:
    count = _large_manifest(store, Path(folder))
    before = _peak_memory()
    start = time.perf_counter()
    cases = SliceStore.open(folder).cases
    opened = time.perf_counter()
    tasks = ('cts', 'tia', 'mi', 'synthesis')
    pool = Pool(cases)
    datasets = [example_dataset(pool, TASKS[task], seed=0) for task in tasks]
    for dataset in datasets:
      dataset[count // 2]
    ready = time.perf_counter()
  print(
    f'{count:,} pairs of {len(cases):,} cases: manifest read in '
    f'{opened - start:.1f} s; {len(tasks)} tasks, {len(tasks) * count:,} '
    f'examples an epoch, ready in {ready - opened:.1f} s; '
    f'{_peak_memory() - before:.2f} GB more at the peak'
  )


def _peak_memory() -> float:
  """Peak memory of this process so far, GB."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main(_) -> None:
  store = SliceStore.open(_STORE.value)
  root = Path(_ROOT.value)
  cases = (csv_cases if root.is_file() else folder_cases)(
    root, dataset='bench', region=Region.parse(_REGION.value)
  )[: _CASES.value]
  _prepare(cases)
  _random_slices(store, cases)
  for name in ('stage1', 'stage2'):
    _pipeline(store, name)
  _scale(store)


if __name__ == '__main__':
  app.run(main)
