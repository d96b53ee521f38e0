"""Questions about scenes have one right answer and no medical words."""

import ast
import itertools
import re
from pathlib import Path

import numpy as np
import pytest

from projects.small_base import tasks
from projects.small_base.scenes import questions, solids, sources, styles
from synermedgen_jax.core.modalities import ROUTES, Modality, Region
from synermedgen_jax.input.tokenizer import project_tokenizer

SCENES = sources.SPLITS['train']
FOLDER = Path(questions.__file__).parent


def texts(example):
  return [span.text for span in example.spans if span.kind == 'text']


def images(example):
  return [span.image for span in example.spans if span.kind == 'vit_image']


@pytest.mark.parametrize('level', range(len(questions.LEVELS)))
def test_view_has_one_right_candidate(level):
  """The right one shows what the source shows, and no other one does."""
  shares = np.eye(len(questions.LEVELS))[level]
  letters = set()
  for seed in range(12):
    example = questions.view(SCENES, np.random.default_rng(seed), shares)
    source, *candidates = images(example)
    right = candidates[questions.LETTERS.index(example.answer)]
    letters.add(example.answer)
    shown = solids.cut(source.scene, source.index).materials
    same = [
      np.array_equal(solids.cut(c.scene, c.index).materials, shown)
      for c in candidates
    ]
    assert same.count(True) == 1
    assert candidates[same.index(True)] == right
    assert len({c.style for c in candidates}) == 1
    if questions.LEVELS[level] == 'same':
      np.testing.assert_array_equal(right.read(), source.read())
    else:
      assert right.style != source.style
    if questions.LEVELS[level] == 'neighbours':
      indices = sorted(c.index for c in candidates)
      assert indices == list(range(indices[0], indices[0] + 4))
  assert letters == set(questions.LETTERS)


def test_style_names_every_panel():
  for seed in range(8):
    example = questions.style(SCENES, np.random.default_rng(seed))
    named = re.findall(r'([A-D]) (\w+)', example.answer)
    assert [letter for letter, _ in named] == list(questions.LETTERS)
    assert [name for _, name in named] == [p.style for p in images(example)]


def test_change_has_one_right_description():
  for seed in range(12):
    example = questions.change(SCENES, np.random.default_rng(seed))
    source, target = images(example)
    assert (source.scene, source.index) == (target.scene, target.index)
    options = texts(example)[3:-1:2]
    pairs = [
      tuple(re.search(r' (\w+) (?:to|into) (\w+)$', option).groups())
      for option in options
    ]
    right = (source.style, target.style)
    assert pairs.count(right) == 1
    assert pairs.index(right) == questions.LETTERS.index(example.answer)
    assert right[::-1] in pairs
    assert len(set(pairs)) == 4


def test_redraw_and_copy_show_the_same_view():
  redrawn = questions.redraw(SCENES, np.random.default_rng(0))
  source, seen, words, target = redrawn.spans
  assert source.image == seen.image
  assert target.has_loss
  assert words.text.split()[-1] == target.image.style != source.image.style
  copied = questions.copy(SCENES, np.random.default_rng(0))
  assert copied.spans[0].image == copied.spans[3].image


def test_telling_sources_show_all_materials_of_the_target():
  """Sources have the requested frequency, and never the target's style."""

  def styles_of(telling):
    examples = [
      questions.redraw(SCENES, np.random.default_rng(seed), telling)
      for seed in range(60)
    ]
    return [(e.spans[0].image.style, e.spans[3].image.style) for e in examples]

  always = styles_of(1.0)
  assert {source for source, _ in always} == set(styles.TELLING)
  assert {target for _, target in always} == set(styles.NAMES)
  assert all(source != target for source, target in always)
  assert {source for source, _ in styles_of(0.0)} == set(styles.NAMES)


def test_splits_share_no_scene():
  ranges = [range(s.first, s.first + s.count) for s in sources.SPLITS.values()]
  ends = sorted((r.start, r.stop) for r in ranges)
  assert all(a[1] <= b[0] for a, b in itertools.pairwise(ends))


@pytest.mark.parametrize('task', tasks.SCENE_TASKS, ids=lambda task: task.name)
def test_examples_are_the_same_by_seed(task):
  one, again = (task.source('train')(3)[5] for _ in range(2))
  assert one == again
  assert one.task == task.name
  (other,) = (task.source('val')(3)[5],)
  assert other != one


def test_every_word_is_one_token():
  tokenizer = project_tokenizer()
  for line in questions.every_text():
    words = re.findall(r'\w+|[^\w\s]', line)
    assert len(tokenizer.encode(line)) == len(words)
    assert tokenizer.decode(tokenizer.encode(line)) == line


def test_no_word_is_medical():
  """No modality, region or route, and no word of the field."""
  vocabulary = {
    w for t in questions.every_text() for w in re.findall(r'\w+', t)
  }
  vocabulary |= {*styles.NAMES, *solids.KINDS}
  words = {word.lower() for word in vocabulary}
  medical = {m.value for m in Modality} | {r.value for r in Region}
  medical |= {w.lower() for m in Modality for w in re.findall(r'\w+', m.label)}
  medical |= {w for r in ROUTES for w in r.name.split('_')} - {'to'}
  words_of_the_field = """
    modality scan scanner patient subject body organ bone skull tissue lesion
    tumour tumor brain head anatomy medical clinical contrast phantom
  """
  medical |= set(words_of_the_field.split())
  assert not words & medical


def test_nothing_medical_is_imported():
  """Scenes import each other and the shapes of tasks alone."""
  allowed = ('projects.small_base.scenes', 'synermedgen_jax.tasks')
  for path in FOLDER.glob('*.py'):
    for node in ast.walk(ast.parse(path.read_text('utf-8'))):
      if isinstance(node, ast.ImportFrom) and node.module.startswith(
        ('syner', 'proj')
      ):
        assert node.module.startswith(allowed), f'{path}: {node.module}'
        names = {alias.name for alias in node.names}
        if node.module == 'synermedgen_jax.tasks':
          assert names == {'prompts'}
