"""The tokenizer of a config, also if `init_from` is in a bucket."""

import json
import os

import pytest
from etils.epath import testing

from synermedgen_jax.config.defaults import default_config
from synermedgen_jax.config.errors import ConfigError
from synermedgen_jax.config.tokenizer import choose_tokenizer
from synermedgen_jax.input import vocab_files
from synermedgen_jax.input.tokenizer import project_tokenizer

BUCKET = 'gs://bucket'


@pytest.fixture
def bucket(tmp_path):
  """A folder that stands for gs://bucket, with the start RUN in it."""
  folder = tmp_path / 'bucket'
  tokenizer = folder / 'run' / 'tokenizer'
  tokenizer.mkdir(parents=True)
  text = project_tokenizer().__reduce__()[1][0]
  (tokenizer / 'tokenizer.json').write_text(text)
  (folder / 'run' / 'config.json').write_text(
    json.dumps({'config': {'tokenizer': '/no/such/place'}})
  )

  def local(original, path, *args, **kwargs):
    return original(
      os.fspath(path).replace(BUCKET, str(folder)), *args, **kwargs
    )

  names = ('open', 'exists', 'isdir', 'makedirs', 'mkdir')
  with testing.mock_epath(**dict.fromkeys(names, local)):
    yield folder


def config(**values):
  config = default_config()
  config.update(values)
  return config


def test_the_tokenizer_of_a_start_in_a_bucket_is_used(bucket):
  name, tokenizer = choose_tokenizer(config(init_from=f'{BUCKET}/run'))
  assert name == f'{BUCKET}/run/tokenizer'
  assert tokenizer.fingerprint == project_tokenizer().fingerprint


def test_a_run_in_a_bucket_keeps_a_copy(bucket):
  vocab_files.copy(f'{BUCKET}/run/tokenizer', f'{BUCKET}/next')
  copied = (bucket / 'next' / 'tokenizer.json').read_bytes()
  assert copied == (bucket / 'run/tokenizer/tokenizer.json').read_bytes()


def test_a_start_without_a_tokenizer_is_refused(tmp_path):
  (tmp_path / 'run').mkdir()
  with pytest.raises(ConfigError, match=r'config\.tokenizer is empty'):
    choose_tokenizer(config(init_from=str(tmp_path / 'run')))
