"""Tasks about scenes, with the formats of the medical tasks.

view    a view, a question, four lettered views -> a letter         (as CTS)
style   four lettered panels -> each one's style                    (as MI)
change  a view in two styles, four lettered descriptions -> a letter (as TIA)
redraw  a view and an instruction -> the view in another style (as synthesis)
copy    a view and an instruction -> the same picture
pairs   two styles, neighbouring views in each (for the contrast of the ViT)
picture a view -> itself                              (as reconstruction)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float

from projects.small_base.scenes import solids, styles
from synermedgen_jax.tasks import prompts
from synermedgen_jax.tasks.example import (
  Example,
  Span,
  label,
  text,
  vae_image,
  vit_image,
)

LETTERS = prompts.LETTERS
STYLE_QUESTION = 'Name the style of each panel.'
COPY = 'copy {region} {source}'

# Similarity of the candidates of `view`, from trivial to hard, and frequencies.
LEVELS = ('same', 'other_scenes', 'apart', 'neighbours')
SHARES = (0.1, 0.3, 0.25, 0.35)
# Share of `redraw` examples whose source shows every material of the scene.
TELLING = 0.85
# Distance of views of one scene that are easy to distinguish.
APART = 5


@dataclasses.dataclass(frozen=True)
class View:
  """A picture of a scene that renders itself (`tasks.example.Picture`)."""

  scene: int
  index: int
  style: str

  def read(self) -> Float[np.ndarray, '64 64']:
    return styles.render(self.scene, self.index, self.style)


@dataclasses.dataclass(frozen=True)
class Scenes:
  """A range of seeds; the ranges of splits do not overlap."""

  first: int
  count: int

  def draw(self, rng: np.random.Generator, n: int = 1) -> list[int]:
    """Seeds of `n` different scenes."""
    picked: list[int] = []
    while len(picked) < n:
      seed = self.first + int(rng.integers(self.count))
      if seed not in picked:
        picked.append(seed)
    return picked


def _format(template: str, scene: int, source: str, target: str = '') -> str:
  kind = solids.kind_of(scene)
  return template.format(region=kind, source=source, target=target)


def _draw_view(rng: np.random.Generator) -> int:
  return int(rng.integers(solids.VIEWS))


def _draw_pair(rng: np.random.Generator) -> tuple[str, str]:
  """Two different styles."""
  source, target = rng.choice(styles.NAMES, 2, replace=False)
  return str(source), str(target)


def view(
  scenes: Scenes,
  rng: np.random.Generator,
  shares: Sequence[float] = SHARES,
) -> Example:
  """Question: which of four candidates shows the view of the source?

  Args:
    scenes: the scenes of a split.
    rng: draws scene, views, styles and order.
    shares: frequencies of `LEVELS`, in any unit.
  """
  level = LEVELS[rng.choice(len(LEVELS), p=np.divide(shares, np.sum(shares)))]
  source, target = _draw_pair(rng)
  n = len(LETTERS)
  if level in ('same', 'other_scenes'):
    views = [(scene, _draw_view(rng)) for scene in scenes.draw(rng, n)]
    if level == 'same':
      target = source
  else:
    scene = scenes.draw(rng)[0]
    step = 1 if level == 'neighbours' else APART
    start = int(rng.integers(solids.VIEWS - step * (n - 1)))
    views = [(scene, start + step * i) for i in rng.permutation(n)]
  true = int(rng.integers(n))
  answer = LETTERS[true]
  spans: list[Span] = [
    vit_image(View(*views[true], source)),
    text(prompts.SHORT.cts[0].format(source=source, target=target)),
  ]
  for letter, candidate in zip(LETTERS, views, strict=True):
    spans += [vit_image(View(*candidate, target)), label(letter)]
  spans.append(text(answer, has_loss=True))
  return Example('view', tuple(spans), answer)


def style(scenes: Scenes, rng: np.random.Generator) -> Example:
  """Question, lettered panels -> 'A flat B frost C glow D flat'."""
  n = len(LETTERS)
  names = [str(name) for name in rng.choice(styles.NAMES, n)]
  panels = [
    View(scene, _draw_view(rng), name)
    for scene, name in zip(scenes.draw(rng, n), names, strict=True)
  ]
  if rng.random() < 0.5:  # two similar styles of one view
    group = styles.CONFUSABLE[rng.integers(len(styles.CONFUSABLE))]
    pair = rng.choice(group, 2, replace=False)
    panels[:2] = [dataclasses.replace(panels[0], style=str(s)) for s in pair]
  panels = [panels[i] for i in rng.permutation(n)]
  spans: list[Span] = [text(STYLE_QUESTION)]
  for letter, panel in zip(LETTERS, panels, strict=True):
    spans += [vit_image(panel), label(letter)]
  answer = ' '.join(
    f'{letter} {panel.style}'
    for letter, panel in zip(LETTERS, panels, strict=True)
  )
  spans.append(text(answer, has_loss=True))
  return Example('style', tuple(spans), answer)


def change(scenes: Scenes, rng: np.random.Generator) -> Example:
  """One view in two styles, four described changes -> a letter.

  As in TIA, the wrong changes are the reversed one and both directions of
  another pair, which usually shares one style with the true pair.
  """
  scene = scenes.draw(rng)[0]
  index = _draw_view(rng)
  source, target = _draw_pair(rng)
  while True:
    wrong = _draw_pair(rng)
    shared = len({*wrong} & {source, target})
    if shared == 1 or (shared == 0 and rng.random() < 0.2):
      break
  options = [(source, target), (target, source), wrong, wrong[::-1]]
  options = [options[i] for i in rng.permutation(len(options))]
  answer = LETTERS[options.index((source, target))]
  spans: list[Span] = [
    vit_image(View(scene, index, source)),
    label(prompts.TIA_SOURCE),
    vit_image(View(scene, index, target)),
    label(prompts.TIA_TARGET),
    text(prompts.SHORT.tia[0]),
  ]
  for letter, option in zip(LETTERS, options, strict=True):
    template = str(rng.choice(prompts.SHORT.descriptions))
    spans += [text(_format(template, scene, *option)), label(letter)]
  spans.append(text(answer, has_loss=True))
  return Example('change', tuple(spans), answer)


def redraw(
  scenes: Scenes, rng: np.random.Generator, telling: float = TELLING
) -> Example:
  """A view and an instruction -> the view in another style.

  Args:
    scenes: the scenes of a split.
    rng: draws scene, view, styles and wording.
    telling: probability that the source's style is one of `styles.TELLING`. The
      other styles hide materials, so a target can only be guessed from them.
  """
  scene, index = scenes.draw(rng)[0], _draw_view(rng)
  source, target = _draw_pair(rng)
  if rng.random() < telling:
    source = str(rng.choice([s for s in styles.TELLING if s != target]))
  template = str(rng.choice(prompts.SHORT.descriptions))
  words = _format(template, scene, source, target)
  return _generation('redraw', scene, index, source, target, words)


def copy(scenes: Scenes, rng: np.random.Generator) -> Example:
  """A view and an instruction -> the same picture."""
  scene, index = scenes.draw(rng)[0], _draw_view(rng)
  name = _draw_pair(rng)[0]
  words = _format(COPY, scene, name)
  return _generation('copy', scene, index, name, name, words)


def _generation(
  task: str, scene: int, index: int, source: str, target: str, words: str
) -> Example:
  picture = View(scene, index, source)
  spans = (
    vae_image(picture),
    vit_image(picture),
    text(words),
    vae_image(View(scene, index, target), has_loss=True),
  )
  return Example(task, spans)


def pairs(scenes: Scenes, rng: np.random.Generator) -> Example:
  """Two styles or dyes, and neighbouring views of a scene in each of them."""
  scene = scenes.draw(rng)[0]
  names = [str(n) for n in rng.choice(styles.NAMES, 2, replace=False)]
  for i, dye in enumerate(rng.choice(styles.DYES, 2, replace=False)):
    if rng.random() < 0.4:
      names[i] = str(dye)
  step = int(rng.choice((1, 1, 2, APART)))
  start = int(rng.integers(solids.VIEWS - step * (len(LETTERS) - 1)))
  # A dye has no name that the model could learn.
  named = [name in styles.STYLES for name in names]
  spans = [
    text(name if is_named else 'style', has_loss=is_named)
    for name, is_named in zip(names, named, strict=True)
  ]
  spans += [
    vit_image(View(scene, start + step * i, name))
    for i in range(len(LETTERS))
    for name in names
  ]
  answers = [
    name for name, is_named in zip(names, named, strict=True) if is_named
  ]
  return Example('pairs', tuple(spans), answers[-1] if answers else '')


def picture(scenes: Scenes, rng: np.random.Generator) -> Example:
  """A view for the autoencoder."""
  shown = View(scenes.draw(rng)[0], _draw_view(rng), _draw_pair(rng)[0])
  return Example('picture', (vae_image(shown, has_loss=True),))


def every_text() -> Iterator[str]:
  """All wordings for every kind and style, to train the tokenizer."""
  yield STYLE_QUESTION
  for name in styles.NAMES:
    yield prompts.SHORT.cts[0].format(source=name, target=name)
    for kind in solids.KINDS:
      for template in (*prompts.SHORT.descriptions, COPY):
        yield template.format(region=kind, source=name, target=name)
