"""Asks the tasks of Stage I about a pair of volumes of a user.

answers = ask_about_pair(trained, route, mr_slices, ct_slices)
answers['cts'].accuracy, answers['cts'].chance    # 0.62, 0.25

CTS on a source and its synthesis says whether the model recognises the anatomy
of the source in the synthesis; TIA, whether the pair shows the instruction.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float

from synermedgen_jax.core.modalities import Route
from synermedgen_jax.inference.answering import Answerer
from synermedgen_jax.inference.workdir import Trained
from synermedgen_jax.slices.case import Case
from synermedgen_jax.slices.windows import Window
from synermedgen_jax.tasks.example import Example
from synermedgen_jax.tasks.pairs import Pair, Pool
from synermedgen_jax.tasks.registry import Task, asked_tasks

_BODY = -0.8  # on [-1, 1]; the background is darker
_SHOWN = 0.08  # least share of a slice that shows the body
# The tasks see slices alone: neither windows nor positions matter to them.
_UNUSED = Window(-1.0, 1.0)


@dataclasses.dataclass(frozen=True)
class Answers:
  """Answers to the questions of one task.

  Attributes:
    examples: the questions with their right answers.
    given: the model's answers.
    right: parts that are right: questions, or panels of MI.
    asked: all parts.
    chance: expected accuracy of guessing.
  """

  examples: Sequence[Example]
  given: Sequence[str]
  right: int
  asked: int
  chance: float

  @property
  def accuracy(self) -> float:
    return self.right / self.asked


def shows_body(slices: Float[np.ndarray, 'z h w']) -> Bool[np.ndarray, ' z']:
  """Which slices show the body: 8 % of the pixels or more are not background.

  Args:
    slices: in [-1, 1].
  """
  return (slices > _BODY).mean((1, 2)) > _SHOWN


def ask_about_pair(
  trained: Trained,
  route: Route,
  source: Float[np.ndarray, 'z h w'],
  target: Float[np.ndarray, 'z h w'],
  *,
  tasks: Sequence[str] = (),
  questions: int = 16,
  seed: int = 0,
) -> Mapping[str, Answers]:
  """Asks about slices of two volumes on one grid.

  Slices without body are not shown. A task without a question about the pair,
  such as CTS about three slices, is left out.

  Args:
    trained: a run that was trained on the tasks in Stage I.
    route: from the source to the target, with one source.
    source, target: slices in [-1, 1].
    tasks: names of the tasks; empty = all that `evaluate` asks of this run.
    questions: questions per task, about evenly spaced slices.
    seed: random seed of negatives, orders and wordings.

  Returns:
    Task -> its answers.
  """
  body = np.flatnonzero(shows_body(source))
  usable = range(int(body[0]), int(body[-1]) + 1) if body.size else range(0)
  case = Case(
    'pair',
    dataset='pair',
    subject='pair',
    region=route.region,
    modalities={route.source: _UNUSED, route.target: _UNUSED},
    sources={},
    shape=source.shape,
    affine=tuple(map(tuple, np.eye(4).tolist())),
    plane=trained.slices.plane,
    usable=usable,
  )
  pool = Pool([case], trained.prompts, trained.config.get('neighbours', 3))
  images = {route.source: source, route.target: target}
  places = np.linspace(0, len(usable) - 1, questions + 2)[1:-1].round()
  pairs = [Pair(case, route, usable[int(i)]) for i in places if len(usable)]
  answers = {}
  for task in asked_tasks(trained.config.get('tasks', {})):
    asked = [pair for pair in pairs if task.eligible(pair, pool)]
    if asked and (not tasks or task.name in tasks):
      rng = np.random.default_rng(seed)
      examples = [task.build(pair, pool, rng) for pair in asked]
      answers[task.name] = _ask(trained, task, examples, images)
  return answers


def _ask(trained: Trained, task: Task, examples, images) -> Answers:
  answerer = Answerer(
    trained.model,
    trained.params,
    trained.tokenizer,
    trained.geometry,
    lambda ref: images[ref.modality][ref.index],
    batch_size=min(8, len(examples)),
  )
  given = answerer.answer(examples)
  parts = [
    part
    for example, answer in zip(examples, given, strict=True)
    for part in task.scoring.parts(example.answer, answer)
  ]
  return Answers(
    examples,
    given,
    right=sum(right == answer for right, answer in parts),
    asked=len(parts),
    chance=task.scoring.chance([right for right, _ in parts]),
  )
