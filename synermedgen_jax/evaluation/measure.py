"""Measures a trained model on the subjects of a slice store.

For example:

    trained = Trained.load('runs/demo/detail')
    store = SliceStore.open('runs/demo/store')
    measured = measure(trained, store, store.split('test'))
    measured.synthesis.scores['synthesis']['brain_mr_to_ct']['ssim']
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from synermedgen_jax.baselines.registry import SYSTEMS
from synermedgen_jax.config.sampling import SamplingConfig
from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.modalities import routes_named
from synermedgen_jax.core.progress import Bar
from synermedgen_jax.evaluation import (
  protocol,
  subjects,
  uncertainty,
  understanding,
  volume_files,
)
from synermedgen_jax.evaluation.adherence import ADHERENCE
from synermedgen_jax.evaluation.examiner import Examiner
from synermedgen_jax.evaluation.results import (
  Answered,
  Measurements,
  Synthesised,
)
from synermedgen_jax.evaluation.synthesisers import SYNTHESISERS
from synermedgen_jax.evaluation.volume_scores import VOLUME_SCORES
from synermedgen_jax.inference.answering import Answerer
from synermedgen_jax.inference.intervals import one_draw
from synermedgen_jax.inference.workdir import Trained
from synermedgen_jax.input.pipeline import slice_reader
from synermedgen_jax.slices.store import Case, SliceStore
from synermedgen_jax.tasks.example import Example, ImageRef
from synermedgen_jax.tasks.pairs import Pool, routes_in
from synermedgen_jax.tasks.registry import asked_tasks
from synermedgen_jax.training.objectives import OBJECTIVES

PARTS = ('understanding', 'synthesis')


class MeasureError(UserError):
  """Settings are invalid, or the model or the store does not support them."""


@dataclasses.dataclass(frozen=True)
class MeasureSettings:
  """Settings of `measure`.

  Attributes:
    parts: a subset of `PARTS`; empty = the parts that the stage trained.
    questions: maximum number of questions per task.
    slices: slices per case, evenly spaced; 0 = all usable ones.
    routes: names of the routes to synthesise, with one source or several;
      empty = all with one.
    sampling: timesteps and guidance; None = those of the model's config.
    batch_size: questions or slices per batch.
    seed: random seed of question sampling and diffusion noise.
    synthesiser: a key of `SYNTHESISERS`; '' = the model of the run.
    score: scores of volumes to add, keys of `VOLUME_SCORES`.
    adherence: scores of adherence to add, keys of `ADHERENCE`.
    interval_draws: draws of the intervals to calibrate, see `uncertainty`; 0 =
      no intervals.
    pictures: number of questions per task whose images are returned.

  Raises:
    MeasureError: a field has an unknown name, `score` has names and `slices`
      is not 0, or intervals are asked of a synthesiser or of one draw.
  """

  parts: tuple[str, ...] = ()
  questions: int = 256
  slices: int = 0
  routes: tuple[str, ...] = ()
  sampling: SamplingConfig | None = None
  batch_size: int = 16
  seed: int = 0
  synthesiser: str = ''
  score: tuple[str, ...] = ()
  adherence: tuple[str, ...] = ()
  interval_draws: int = 0
  pictures: int = 6

  def __post_init__(self):
    for field, given, known in (
      ('parts', self.parts, PARTS),
      ('synthesiser', {self.synthesiser} - {''}, SYNTHESISERS),
      ('score', self.score, VOLUME_SCORES),
      ('adherence', self.adherence, ADHERENCE),
    ):
      if unknown := sorted(set(given) - set(known)):
        raise MeasureError(
          f'{field}: unknown {", ".join(unknown)}; expected some of '
          f'{", ".join(known)}.'
        )
    try:
      routes_named(self.routes)
    except UserError as error:
      raise MeasureError(f'routes: {error}') from None
    if self.score and self.slices:
      raise MeasureError(
        'score: scores of volumes need all slices; set slices to 0.'
      )
    if self.adherence and self.synthesiser:
      raise MeasureError(
        'adherence: is that of the model of the run; leave out synthesiser.'
      )
    if self.interval_draws == 1:
      raise MeasureError('interval_draws: one draw has no deviation; take 8.')
    if self.interval_draws and self.synthesiser:
      raise MeasureError(
        'intervals: are those of the model of the run; leave out synthesiser.'
      )


def measure(
  trained: Trained,
  store: SliceStore,
  cases: Sequence[Case],
  settings: MeasureSettings | None = None,
  volumes: volume_files.VolumeFiles | None = None,
) -> Measurements:
  """Scores a model's answers to questions and its synthesis of routes.

  Args:
    trained: the model.
    store: the slice store; its training split, if it has one, gives the
      baseline `mean_target`.
    cases: held-out cases of the store.
    settings: None = the defaults.
    volumes: receives the synthesised volumes of every subject, or those of the
      subjects that it shows if only some slices are scored; None = none.

  Raises:
    MeasureError: the stage trains neither part, no case has a requested route,
      or scores of volumes are requested without synthesis.
    VolumeScoreError: a score of volumes does not apply.
    IntervalError: intervals are asked, and the store has no validation subject,
      or `cases` are of split train or val.
  """
  settings = settings or MeasureSettings()
  parts = measured_parts(trained, settings)
  if not parts:
    raise MeasureError(
      f'config.stage: {trained.config["stage"]} trains neither understanding '
      'nor synthesis; measure a later stage.'
    )
  if settings.score and 'synthesis' not in parts:
    raise MeasureError(
      'score: scores of volumes need synthesis; add it to the parts.'
    )
  if settings.adherence and 'synthesis' not in parts:
    raise MeasureError('adherence: needs synthesis; add it to the parts.')
  if settings.interval_draws:
    if 'synthesis' not in parts:
      raise MeasureError('intervals: need synthesis; add it to the parts.')
    uncertainty.check_splits(store, cases)
  if trained.config['stage'] in SYSTEMS:
    settings = _of_system(trained, settings, parts, cases)
  if 'synthesis' in parts:  # what cannot be synthesised is refused first
    items = _route_pairs(store, cases, settings)
    own = trained.synthesiser(settings.sampling, batch_size=settings.batch_size)
    _check_neighbours(own.sampling, settings)
  answered = synthesised = intervals = None
  if 'understanding' in parts:
    answered = _ask(trained, store, cases, settings)
  if 'synthesis' in parts:
    synthesised = _synthesise(trained, own, store, items, settings, volumes)
  if settings.interval_draws:
    intervals = uncertainty.measure_uncertainty(
      trained.synthesiser(
        one_draw(own.sampling), batch_size=settings.batch_size
      ),
      store,
      cases,
      steps=trained.steps,
      draws=settings.interval_draws,
      slices=settings.slices,
      routes=settings.routes,
      seed=settings.seed,
    )
  return Measurements(answered, synthesised, intervals)


def _of_system(
  trained: Any,
  settings: MeasureSettings,
  parts: Sequence[str],
  cases: Sequence[Case],
) -> MeasureSettings:
  """The settings for a system of the arena: its own routes by default.

  Cases without them, as those of another region, have routes between the same
  modalities.
  """
  if 'understanding' in parts:
    raise MeasureError(
      f'parts: the system {trained.config["stage"]} answers no questions.'
    )
  routes = routes_named(settings.routes)
  if not routes:
    routes = routes_in(cases, trained.routes) or routes_in(cases)
  served = tuple(route.name for route in routes if trained.serves(route))
  other = {route.name for route in routes} - set(served)
  if other and (settings.routes or not served):
    raise MeasureError(
      f'routes: {trained.config["stage"]} was not trained on '
      f'{", ".join(sorted(other))}, only on {", ".join(trained.routes)}.'
    )
  return dataclasses.replace(settings, routes=served)


def measured_parts(
  trained: Trained, settings: MeasureSettings
) -> tuple[str, ...]:
  """The parts that `measure` measures: by default those of the stage."""
  stage = trained.config['stage']
  if settings.parts:
    return settings.parts
  if stage in SYSTEMS:
    return ('synthesis',)
  terms = OBJECTIVES[stage].terms if stage in OBJECTIVES else ()
  parts = zip(('ntp', 'flow'), PARTS, strict=True)
  return tuple(part for term, part in parts if term in terms)


def _ask(
  trained: Trained,
  store: SliceStore,
  cases: Sequence[Case],
  settings: MeasureSettings,
) -> Answered:
  read = slice_reader(store)
  answerer = Answerer(
    trained.model,
    trained.params,
    trained.tokenizer,
    trained.geometry,
    read,
    batch_size=settings.batch_size,
  )
  pool = Pool(cases, trained.prompts, trained.config['neighbours'])
  asked = {
    task.name: protocol.draw_questions(
      pool, task, settings.questions, seed=settings.seed
    )
    for task in asked_tasks(trained.config.get('tasks', {}))
  }
  # With one capacity, all questions share one compiled program.
  capacity = answerer.capacity_for(list(itertools.chain(*asked.values())))
  subject_by_case = {case.id: case.person for case in cases}
  records, pictured, images, answers_by_task = [], [], [], {}
  for task, examples in asked.items():
    with Bar(f'ask {task}', len(examples), 'question') as bar:
      answers = answerer.answer(
        examples, capacity=capacity, progress=bar.update
      )
    for i, (example, answer) in enumerate(zip(examples, answers, strict=True)):
      record = {
        'task': task,
        'answer': example.answer,
        'prediction': answer,
        'route': example.route.name if example.route else '',
      }
      records.append(record)
      shown = [subject_by_case[s.image.case] for s in example.spans if s.image]
      answers_by_task.setdefault(task, []).extend(
        subjects.answers_of(record, shown, i)
      )
      if i < settings.pictures:
        picture, refs = _picture(example)
        indices = list(range(len(images), len(images) + len(refs)))
        pictured.append(record | picture | {'images': indices})
        images += map(read, refs)
  scores = understanding.score(records)
  by_subject = {
    task: {'chance': score['chance'], 'answers': answers_by_task[task]}
    for task, score in scores['understanding'].items()
  }
  shown = np.stack(images) if images else np.zeros((0, 0, 0), np.float32)
  return Answered(scores, by_subject, pictured, shown)


def _picture(example: Example) -> tuple[dict[str, Any], list[ImageRef]]:
  """The texts of a question and the labels of its images, and the images."""
  question, images, labels = [], [], []
  after_image = False
  for span in example.prompt.spans:
    if span.kind != 'text':
      images.append(span.image)
      labels.append('')
    elif span.is_label and after_image:
      labels[-1] = span.text
    elif span.is_label and question:
      question[-1] += f' {span.text}'
    else:
      question.append(span.text)
    after_image = span.kind != 'text'
  return {'question': '\n'.join(question), 'letters': labels}, images


def _route_pairs(
  store: SliceStore, cases: Sequence[Case], settings: MeasureSettings
) -> list[protocol.RoutePair]:
  """The pairs to synthesise, case by case; raises if they cannot be scored."""
  pairs = list(
    protocol.route_pairs(cases, slices=settings.slices, routes=settings.routes)
  )
  if not pairs:
    raise MeasureError(
      f'{store.path}: no subject of the split has a requested route.'
    )
  protocol.check_volume_scores(store, pairs, settings.score)
  return pairs


def _check_neighbours(sampling: Any, settings: MeasureSettings) -> None:
  """Refuses slices apart, if the model synthesises them as neighbours."""
  if settings.synthesiser or not settings.slices:
    return
  for name in ('slab', 'grain'):
    value = getattr(sampling, name, 1)  # other systems have none
    if value > 1:
      raise MeasureError(
        f'--slices={settings.slices}: picks slices apart, and {name} {value} '
        f'needs neighbours; set --slices=0, or --{name}=1.'
      )


def _synthesise(
  trained: Trained,
  own: Any,
  store: SliceStore,
  items: Sequence[protocol.RoutePair],
  settings: MeasureSettings,
  volumes: volume_files.VolumeFiles | None,
) -> Synthesised:
  model, sampling = own, dataclasses.asdict(own.sampling)
  examiner = Examiner(
    trained,
    own,
    store,
    settings.adherence,
    seed=settings.seed,
    batch_size=settings.batch_size,
  )
  if settings.synthesiser:
    model = SYNTHESISERS[settings.synthesiser](trained, store)
    sampling = {'synthesiser': settings.synthesiser}
  with _progress('synthesise', items) as bar:

    def synthesise(route, sources):
      return model.synthesise(
        route, sources, seed=settings.seed, progress=bar.update
      )

    scored = protocol.score_routes(store, items, synthesise, own.reconstruct)
    if volumes and not settings.slices:
      scored = volumes.record(scored)
    result = Synthesised.gather(
      scored,
      sampling,
      volume_scores=settings.score,
      adherence=settings.adherence,
      examine=examiner.examine,
    )
  if volumes and settings.slices:
    pairs = volume_files.chosen_pairs(items, result.by_subject)
    with _progress('volumes', pairs) as bar:  # `synthesise` advances it
      for pair in pairs:
        item = protocol.RouteCase.read(store, pair)
        volumes.add(item, synthesise(item.route, item.sources))
  return result


def _progress(title: str, pairs: Sequence[protocol.RoutePair]) -> Bar:
  total = sum(len(pair.indices) for pair in pairs)
  return Bar(title, total, 'slice')
