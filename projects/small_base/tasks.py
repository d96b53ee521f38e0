"""Registers the tasks and the stage of the small base, for `config.modules`."""

from __future__ import annotations

from projects.small_base.contrast import contrast_sums
from projects.small_base.scenes import questions
from projects.small_base.scenes.sources import source
from synermedgen_jax.tasks.registry import Task, register_task
from synermedgen_jax.training.objectives import register_objective

SCENE_TASKS = (
  Task(
    'view',
    'question',
    'the same view among others',
    'which of four views of scenes is the source view in another style',
    source=source(questions.view),
  ),
  Task(
    'style',
    'question',
    'styles of panels',
    'the style of each of four panels',
    source=source(questions.style),
  ),
  Task(
    'change',
    'question',
    'descriptions of a change',
    'which of four descriptions fits two pictures of one view',
    source=source(questions.change),
  ),
  Task(
    'redraw',
    'synthesis',
    'drawing in another style',
    'a view in the style that the instruction names',
    source=source(questions.redraw),
  ),
  Task(
    'copy',
    'synthesis',
    'drawing again',
    'the same picture again',
    source=source(questions.copy),
  ),
  Task(
    'pairs',
    'question',
    'views in two styles',
    'views of one scene in two styles, with the names of the styles',
    source=source(questions.pairs),
  ),
  Task(
    'picture',
    'reconstruction',
    'reconstruction of scenes',
    'a view through the autoencoder and back',
    source=source(questions.picture),
  ),
)

for _task in SCENE_TASKS:
  register_task(_task)
register_objective('contrast', contrast_sums, ('contrast', 'caption'))
