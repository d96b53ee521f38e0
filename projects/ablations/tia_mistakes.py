"""Counts the routes that wrong TIA answers name.

  python -m projects.ablations.tia_mistakes --workdir=RUN/stage1

Draws questions on validation subjects as `evaluate` does. A wrong route is
either the reversed one, or shares its source, its target or neither with the
true route. Prints these counts, and the number of right answers per true route.
"""

import collections

from absl import app, flags

from synermedgen_jax.core.modalities import ROUTES, Route
from synermedgen_jax.evaluation.protocol import draw_questions
from synermedgen_jax.evaluation.routes import align
from synermedgen_jax.inference.answering import Answerer
from synermedgen_jax.inference.workdir import Trained
from synermedgen_jax.input.pipeline import slice_reader
from synermedgen_jax.slices.store import SliceStore
from synermedgen_jax.tasks.example import Example
from synermedgen_jax.tasks.pairs import Pool
from synermedgen_jax.tasks.prompts import LETTERS, PROMPTS
from synermedgen_jax.tasks.registry import TASKS
from synermedgen_jax.tasks.scoring import read_letter

_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Workdir of a Stage I.', required=True
)
_QUESTIONS = flags.DEFINE_integer(
  'questions', 512, 'Number of questions.', lower_bound=1
)
_SEED = flags.DEFINE_integer('seed', 1, 'Random seed of the questions.')
_ROUTES = {
  text: route
  for prompts in PROMPTS.values()
  for route in ROUTES
  for text in prompts.describe(route)
}
_KINDS = ('right', 'reversed', 'source right', 'target right', 'neither')


def _kind(example: Example, answer: str) -> str:
  """One of `_KINDS`, or 'unread'."""
  (letter,) = read_letter(answer)
  if not letter:
    return 'unread'
  options = [_ROUTES[s.text] for s in example.spans if s.text in _ROUTES]
  return _compare(example.route, options[LETTERS.index(letter)])


def _compare(truth: Route, named: Route) -> str:
  """One of `_KINDS`."""
  if named == truth:
    return 'right'
  if named == truth.reverse:
    return 'reversed'
  if named.source == truth.source:
    return 'source right'
  return 'target right' if named.target == truth.target else 'neither'


def main(_) -> None:
  trained = Trained.load(_WORKDIR.value)
  store = SliceStore.open(trained.config['store'])
  examples = draw_questions(
    Pool(store.split('val'), trained.prompts),
    TASKS['tia'],
    _QUESTIONS.value,
    seed=_SEED.value,
  )
  answers = Answerer(
    trained.model,
    trained.params,
    trained.tokenizer,
    trained.geometry,
    slice_reader(store),
  ).answer(examples)
  kinds = list(map(_kind, examples, answers))
  counts = collections.Counter(kinds)
  print(align([(k, str(counts[k])) for k in (*_KINDS, 'unread')]))
  asked = collections.Counter(e.route.name for e in examples)
  right = collections.Counter(
    e.route.name for e, k in zip(examples, kinds, strict=True) if k == 'right'
  )
  print(align([(n, f'{right[n]} of {asked[n]}') for n in sorted(asked)]))


if __name__ == '__main__':
  app.run(main)
