"""An evaluation from a run to its files, as `evaluate` does it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence

from etils.epath import Path
from ml_collections import ConfigDict

from synermedgen_jax.baselines.registry import SYSTEMS
from synermedgen_jax.config.command_line import UsageError
from synermedgen_jax.config.modules import check_imported
from synermedgen_jax.evaluation import (
  choices,
  named_scores,
  routes,
  uncertainty,
  understanding,
  volume_files,
)
from synermedgen_jax.evaluation.measure import (
  MeasureError,
  MeasureSettings,
  measure,
  measured_parts,
)
from synermedgen_jax.evaluation.results import Measurements, write_results
from synermedgen_jax.inference.sampling_flags import SamplingFlags
from synermedgen_jax.inference.trained_system import load_system
from synermedgen_jax.inference.workdir import Trained
from synermedgen_jax.interop.choice_jsonl import Choice
from synermedgen_jax.slices.store import Case, SliceStore


def load(workdir: str, config: ConfigDict | None) -> Trained:
  """The run of a workdir, or the model that a config names.

  Raises:
    WorkdirError: the workdir has no run.
    ModuleMissing: the run was trained with modules that are not imported.
  """
  if config:
    trained = Trained.from_config(config)
  else:
    trained = load_system(workdir) or Trained.load(workdir)
  check_imported(trained.config.get('modules', ()), workdir)
  return trained


def ask(
  trained: Trained,
  questions: Sequence[Choice],
  workdir: Path,
  *,
  file: str,
  batch_size: int,
) -> None:
  """Asks the questions of a file, prints and writes the scores.

  Args:
    trained: the run.
    questions: those of the file.
    workdir: folder of the results.
    file: name of the file, for the results.
    batch_size: questions per batch.

  Raises:
    UsageError: the run is a system that answers no questions.
  """
  if trained.config['stage'] in SYSTEMS:
    raise UsageError(
      f'--questions_file: {trained.title} answers no questions; name a run of '
      'Stage I or of joint training.'
    )
  records = choices.ask(trained, questions, batch_size=batch_size)
  scores = choices.score(records)
  path = choices.write(workdir, file, records, scores)
  print(f'\n{choices.table(scores)}\n\n{path}')


@dataclasses.dataclass(frozen=True)
class Job:
  """What to measure, as the flags of `evaluate` say.

  Attributes:
    output: folder of the results.
    store: the slice store; '' = that of the run.
    split: split of the subjects.
    settings: questions, slices and scores.
    sampling: flags that override the sampling of the run.
    asks: --questions is given, so questions have to be asked.
    volumes: whether volumes are written although slices are picked.
    reports: whether `report` can read the folder, which then is a workdir.
  """

  output: Path
  store: str
  split: str
  settings: MeasureSettings
  sampling: SamplingFlags
  asks: bool
  volumes: bool
  reports: bool = True

  def run(self, trained: Trained) -> None:
    """Measures a run, writes `output`/evaluation and prints the tables.

    Raises:
      UsageError: a flag has no effect, or the split has no subject.
      UserError: as `measure`.
    """
    settings = self._with_sampling(trained)
    if self.asks and 'understanding' not in measured_parts(trained, settings):
      raise UsageError(
        '--questions: has no effect, since only synthesis is measured; leave '
        'it out.'
      )
    store, cases = self._held_out(trained)
    with self._collected(trained, settings) as volumes:
      measured = measure(trained, store, cases, settings, volumes)
      self._write(trained, store, cases, measured, volumes)

  def _with_sampling(self, trained: Trained) -> MeasureSettings:
    """Adds the sampling of the run, with the overrides of the flags.

    Refuses such flags where they have no effect.
    """
    stage = trained.config['stage']
    if stage in SYSTEMS:
      self.sampling.refuse(f'{trained.title} samples as it was trained')
    elif 'synthesis' not in measured_parts(trained, self.settings):
      self.sampling.refuse('no slice is synthesised')
    elif name := self.settings.synthesiser:
      self.sampling.refuse(f'{name} synthesises in its own way')
    else:
      sampling = self.sampling.apply(trained.sampling)
      return dataclasses.replace(self.settings, sampling=sampling)
    return self.settings

  def _collected(
    self, trained: Trained, settings: MeasureSettings
  ) -> contextlib.AbstractContextManager[volume_files.VolumeFiles | None]:
    """Where volumes are collected; None if none are written."""
    if 'synthesis' not in measured_parts(trained, settings):
      if self.volumes:
        raise UsageError(
          '--volumes: has no effect, since no slice is synthesised; leave it '
          'out.'
        )
      return contextlib.nullcontext()
    if settings.slices and not self.volumes:
      return contextlib.nullcontext()
    return volume_files.collect_volumes(self.output)

  def _held_out(self, trained: Trained) -> tuple[SliceStore, tuple[Case, ...]]:
    """Returns the store and its cases of the split to measure."""
    path = self.store or trained.config['store']
    if not path:
      raise UsageError(
        '--store: the run was trained without a store; name one.'
      )
    store = SliceStore.open(path)
    cases = store.split(self.split)
    if not cases:
      raise UsageError(
        f'{store.path}: has no subject in split {self.split!r}; '
        'choose another --split.'
      )
    return store, cases

  def _write(
    self,
    trained: Trained,
    store: SliceStore,
    cases: tuple[Case, ...],
    measured: Measurements,
    volumes: volume_files.VolumeFiles | None,
  ) -> None:
    settings = {
      'split': self.split,
      'slices': self.settings.slices,
      'questions': self.settings.questions,
      'seed': self.settings.seed,
      'neighbours': trained.config.get('neighbours', 3),
      'steps': list(trained.steps),
    }
    result = write_results(
      self.output, store, cases, measured, settings, volumes=volumes
    )
    if answered := measured.understanding:
      print('\n' + understanding.understanding_table(answered.scores))
    if synthesised := measured.synthesis:
      print('\n' + routes.route_table(result))
      for line in named_scores.lines(synthesised.named_scores):
        print(line)
    if measured.intervals:
      print('\n' + uncertainty.table(measured.intervals))
    if self.reports:
      print(f'\nReport: synermedgen report --workdir={self.output}')
    print(self.output / 'evaluation' / 'metrics.json')


def measure_settings(**values: object) -> MeasureSettings:
  """`MeasureSettings`; an invalid value raises UsageError with its flag."""
  try:
    return MeasureSettings(**values)
  except MeasureError as error:
    raise UsageError(f'--{error}') from None
