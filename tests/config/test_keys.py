"""Keys of a config as text."""

import re

import pytest
from ml_collections import ConfigDict

from synermedgen_jax.config.defaults import (
  KEYS,
  default_config,
  system_config,
)
from synermedgen_jax.config.keys import (
  WORDS,
  describe,
  leaves,
  most_used,
  suggestion,
)

STAGE, SYSTEM = default_config().to_dict(), system_config().to_dict()


@pytest.mark.parametrize(
  ('name', 'config', 'key'),
  [
    ('batch_size', STAGE, 'rows'),
    ('lr', STAGE, 'learning_rate'),
    ('optimizer.lr', STAGE, 'learning_rate'),
    ('epochs', STAGE, 'steps'),
    ('optimizer.name', STAGE, 'optimizer'),
    ('image_size', STAGE, 'image.vae_size'),
    ('image_size', SYSTEM, 'size'),
    ('stepz', STAGE, 'steps'),
    ('sampling.pointz', STAGE, 'sampling.points'),
    ('pointz', STAGE, 'sampling.points'),
  ],
)
def test_the_key_that_is_meant_is_suggested(name, config, key):
  assert suggestion(name, config).startswith(f'did you mean --config.{key} (')


def test_a_suggestion_has_the_meaning_and_the_unit():
  assert suggestion('epochs', STAGE) == (
    'did you mean --config.steps (Length of the training; unit: steps)?'
  )


def test_nothing_is_suggested_for_a_name_that_resembles_none():
  assert suggestion('colour', STAGE) == ''
  # A system of the arena has no guidance.
  assert suggestion('cfg_scale', SYSTEM) == ''


def test_words_of_other_tools_lead_to_keys_and_are_none_themselves():
  stage, system = dict(leaves(STAGE)), dict(leaves(SYSTEM))
  for word, keys in WORDS.items():
    assert set(keys) <= stage.keys() | system.keys()
    assert word not in stage


def test_every_key_is_printed_with_its_value_and_changed_ones_are_marked():
  config = default_config()
  config.steps = 7
  config.tasks = {'mi': 0.5, 'cts': 0.5}
  lines = describe(config).splitlines()
  assert '* config.steps = 7  (default 20000)' in lines
  assert lines[lines.index('* config.steps = 7  (default 20000)') + 1] == (
    '      Length of the training. Unit: steps.'
  )
  assert "* config.tasks = {'cts': 0.5, 'mi': 0.5}  (default {})" in lines
  assert '  config.seed = 0' in lines
  names = {line[2:].split(' ')[0] for line in lines if ' config.' in line[:9]}
  assert names == {f'config.{k.name}' for keys in KEYS.values() for k in keys}
  assert sum(line.startswith('* ') for line in lines) == 2


def test_a_system_and_keys_of_a_project_are_printed():
  config = system_config()
  assert '  config.size = (256, 256)' in describe(config).splitlines()
  with config.unlocked():
    config.extra = ConfigDict({'depth': 3})
  assert describe(config).splitlines()[-2:] == [
    '# Other keys',
    '* config.extra.depth = 3',
  ]


def test_the_most_used_keys_exist():
  names = re.findall(r'^  --config\.(\S+)$', most_used(), re.MULTILINE)
  assert names[:2] == ['init_from', 'store']
  assert set(names) <= {key.name for keys in KEYS.values() for key in keys}
