from importlib import resources

from projects.small_base import train_tokenizer
from synermedgen_jax.input.tokenizer import project_tokenizer


def test_the_shipped_file_is_a_fresh_training():
  file = resources.files('synermedgen_jax.input') / 'tokenizer.json'
  fresh = train_tokenizer.train_project_tokenizer().to_str(pretty=True) + '\n'
  assert file.read_text('utf-8') == fresh


def test_the_shipped_vocabulary_is_within_its_bound():
  assert project_tokenizer().vocab_size <= train_tokenizer.MAX_VOCAB
