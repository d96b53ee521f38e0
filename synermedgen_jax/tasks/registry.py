"""The table of tasks: everything that the library knows about each.

A task is a row of `TASKS`. Training, evaluation and reports read the row and
never ask for a task by its name, so a new task is its module and one
`register_task(Task(...))`. A project's rows are in a module that
`config.modules` names.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import numpy as np

from synermedgen_jax.core.errors import UserError
from synermedgen_jax.tasks import cts, description, mi, synthesis, tia
from synermedgen_jax.tasks.example import Example, ExampleSource
from synermedgen_jax.tasks.pairs import Pair, Pool
from synermedgen_jax.tasks.scoring import FACTS, LETTER, PANELS, Scoring

Kind = Literal['question', 'synthesis', 'reconstruction']
Asked = Literal['always', 'trained']


@dataclasses.dataclass(frozen=True)
class Task:
  """One kind of example, to train on or to ask.

  Examples come from pairs of slices (`build`), from a source of the task's own
  (`source`), or from files that the config names (neither).

  Attributes:
    name: the key of `config.tasks`, in metrics and in files.
    kind: 'question': the answer's tokens have a loss. 'synthesis': the noised
      image has one, no text has, and conditions are left out at the rates of
      `config.dropout`. 'reconstruction': an image for the autoencoder alone.
    title: full name, for reports.
    definition: the question or the image to make, in words, for reports.
    build: returns an example about a pair. It draws from the pool and the
      generator alone, so a seed fixes every example.
    eligible: whether the task has an example about a pair.
    several_sources: examples may be about pairs of routes with several sources.
    longest: examples, among them the longest, that `build` may return for a
      pool, without slices; a run whose capacity cannot hold one is refused
      before it starts.
    source: split -> seed -> an endless dataset of examples.
    scoring: scoring of answers. `evaluate` asks every task that has both
      `build` and `scoring`.
    asked: 'always': whether or not the run trained on the task. 'trained': only
      if the task has a share in `config.tasks` of the run.
    mirror: images may be mirrored in training, as no text of the task names a
      side.
  """

  name: str
  kind: Kind
  title: str
  definition: str
  build: Callable[[Pair, Pool, np.random.Generator], Example] | None = None
  eligible: Callable[[Pair, Pool], bool] = lambda pair, pool: True
  several_sources: bool = False
  longest: Callable[[Pool], Iterable[Example]] = lambda pool: ()
  source: Callable[[str], ExampleSource] | None = None
  scoring: Scoring | None = None
  asked: Asked = 'always'
  mirror: bool = False

  def __post_init__(self):
    if not self.name.isidentifier() or self.name != self.name.lower():
      raise ValueError(
        f'Task {self.name!r}: expected a name of lower-case letters, digits '
        'and _.'
      )
    if self.build and self.source:
      raise ValueError(f'Task {self.name!r} has both `build` and `source`.')

  def pairs(self, pool: Pool) -> list[Pair]:
    """The pairs of a pool that the task has examples about."""
    return [
      pair
      for pair in pool.pairs()
      if (self.several_sources or len(pair.route.sources) == 1)
      and self.eligible(pair, pool)
    ]


TASKS: dict[str, Task] = {}


def register_task(task: Task) -> Task:
  """Adds a row to the table.

  Raises:
    ValueError: the name is taken.
  """
  if task.name in TASKS:
    raise ValueError(f'Task {task.name!r} is registered already.')
  TASKS[task.name] = task
  return task


def task_named(name: str) -> Task:
  """The row of that name.

  Raises:
    UserError: there is none; the message lists the known ones.
  """
  if name not in TASKS:
    raise UserError(
      f'Unknown task {name!r}: expected one of {", ".join(TASKS)}. Tasks of a '
      'project need its module in config.modules, or on --modules.'
    )
  return TASKS[name]


def asked_tasks(shares: Mapping[str, float] | None = None) -> list[Task]:
  """The tasks that `evaluate` asks, in order of registration.

  Args:
    shares: `config.tasks` of a run; None = the tasks that any run is asked.
  """
  return [
    task
    for task in TASKS.values()
    if task.build and task.scoring
    if shares is None or task.asked == 'always' or shares.get(task.name, 0) > 0
  ]


def task_names(shares: Mapping[str, float]) -> tuple[str, ...]:
  """The tasks of a run in the order of their ids.

  Args:
    shares: `config.tasks`, name -> share of the examples.

  Returns:
    The names with a share above 0, sorted; `PackedBatch.task_ids` are
    positions in this tuple.
  """
  return tuple(sorted(name for name, share in shares.items() if share > 0))


register_task(
  Task(
    'cts',
    'question',
    'conditional target selection',
    'which of four neighbouring slices of the target shows the same place as '
    'the source slice',
    build=cts.build,
    eligible=cts.eligible,
    scoring=LETTER,
    mirror=True,
  )
)
register_task(
  Task(
    'mi',
    'question',
    'modality identification',
    'the modality of each of four panels',
    build=mi.build,
    scoring=PANELS,
    mirror=True,
  )
)
register_task(
  Task(
    'tia',
    'question',
    'transformation instruction alignment',
    'which of four descriptions of a route fits a source and a target slice',
    build=tia.build,
    scoring=LETTER,
    mirror=True,
  )
)
# Not a task of the paper, which names it as future work.
register_task(
  Task(
    'description',
    'question',
    'description in words',
    'modality, region, plane, level and lesions of one slice, in words',
    build=description.build,
    longest=description.longest,
    scoring=FACTS,
    asked='trained',
  )
)
register_task(
  Task(
    'synthesis',
    'synthesis',
    'synthesis',
    'the target slice from the source slices and a description of the route',
    build=synthesis.build,
    several_sources=True,
    longest=synthesis.longest,
    mirror=True,
  )
)
register_task(
  Task(
    'reconstruction',
    'reconstruction',
    'reconstruction',
    'a slice through the autoencoder and back',
    build=synthesis.build_reconstruction,
    several_sources=True,
    mirror=True,
  )
)
# BAGEL's own formats: `config.bagel_files` names their files.
register_task(
  Task(
    'vlm',
    'question',
    'conversations about images',
    "questions and answers in BAGEL's VLM format",
  )
)
register_task(
  Task(
    'editing',
    'synthesis',
    'image editing',
    "chains of edits in BAGEL's editing format",
  )
)
