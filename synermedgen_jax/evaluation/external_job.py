"""Scores of outputs of another program, from their files to the results."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator

from etils.epath import Path

from synermedgen_jax import __version__
from synermedgen_jax.config.command_line import UsageError
from synermedgen_jax.core import files
from synermedgen_jax.evaluation import named_scores
from synermedgen_jax.evaluation.external import Scored, ScoreSettings, score
from synermedgen_jax.evaluation.output_files import OutputError
from synermedgen_jax.evaluation.results import (
  EXTERNAL,
  Measurements,
  write_results,
)
from synermedgen_jax.evaluation.routes import route_table
from synermedgen_jax.slices.store import SliceStore


def score_settings(*args: object, **values: object) -> ScoreSettings:
  """`ScoreSettings`; an invalid value raises UsageError with its flag."""
  try:
    return ScoreSettings(*args, **values)
  except OutputError as error:
    raise UsageError(f'--{error}') from None


@dataclasses.dataclass(frozen=True)
class ScoreJob:
  """Where the truths are, and where the results go.

  Attributes:
    workdir: folder of the results.
    store: the slice store.
    split: split of the subjects.
    modules: modules that the results were computed with.
  """

  workdir: Path
  store: str
  split: str
  modules: tuple[str, ...]

  def run(self, settings: ScoreSettings) -> None:
    """Scores the outputs, writes WORKDIR/evaluation and prints the tables.

    Raises:
      UsageError: the workdir has other files than results of `score`.
      UserError: as `score`.
    """
    self._check_workdir(settings.name)
    store = SliceStore.open(self.store)
    cases = store.split(self.split)
    self._write(store, cases, score(store, cases, settings), settings.name)

  def _check_workdir(self, name: str) -> None:
    """Refuses a folder with files, unless they are results of `score`.

    A system that is trained per pair has its config.json in folders of routes.
    """
    workdir = self.workdir
    if not workdir.exists() or (
      workdir.is_dir() and not any(workdir.iterdir())
    ):
      return
    try:
      record = json.loads((workdir / 'config.json').read_bytes())
      stage = record['config']['stage']
    except (OSError, ValueError, KeyError, TypeError):
      stage = ''  # no file of `score`
    if stage != EXTERNAL:
      raise UsageError(
        f'--workdir: {workdir} holds other files than results of score; name '
        f'another folder for the results of {name}.'
      )

  def _write(self, store: SliceStore, cases, scored: Scored, name: str) -> None:
    """Writes the results and prints them."""
    config = {
      'stage': EXTERNAL,
      'init_from': '',
      'system': name,
      'modules': list(self.modules),
    }
    versions = {'synermedgen-jax': __version__}
    # First, so that the folder of an interrupted command is accepted again.
    files.write_json(
      self.workdir / 'config.json', {'config': config, 'versions': versions}
    )
    result = write_results(
      self.workdir,
      store,
      cases,
      Measurements(None, scored.synthesis),
      {'split': self.split, 'slices': scored.slices},
      outputs=scored.record,
    )
    print('\n' + route_table(result))
    for line in named_scores.lines(scored.synthesis.named_scores):
      print(line)
    print('\n' + '\n'.join(_lines(scored)))
    print(f'\nReport: synermedgen report --workdir={self.workdir}')
    print(self.workdir / 'evaluation' / 'metrics.json')


def _lines(scored: Scored) -> Iterator[str]:
  """What was scored, and what was undone before it."""
  record = scored.record
  yield f'{record["name"]}: {record["slices"]} of {record["of"]} slices scored.'
  steps = [f'{k} {v}' for k, v in record['steps'].items() if v]
  yield f'Read: {", ".join(steps)}.'
  if record['crop']:
    yield f'Crops undone by the box of the {record["crop"]}.'
  if record['force']:
    forced = record['steps']['forced']
    yield f'Scored with --force: {forced} refusals overridden.'
