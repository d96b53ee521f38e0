"""A new folder appears complete or not at all."""

import pytest

from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.files import new_folder


def test_a_folder_appears_at_the_end(tmp_path):
  path = tmp_path / 'a' / 'b'
  with new_folder(path) as folder:
    (folder / 'x').write_text('1')
    assert not path.exists()
  assert [p.name for p in path.parent.iterdir()] == ['b']
  assert (path / 'x').read_text() == '1'


def test_nothing_is_left_after_an_error(tmp_path):
  def write():
    with new_folder(tmp_path / 'b') as folder:
      (folder / 'x').write_text('1')
      raise KeyError

  with pytest.raises(KeyError):
    write()
  assert not list(tmp_path.iterdir())


def test_what_an_earlier_process_left_is_not_kept(tmp_path):
  (tmp_path / '.b.partial').mkdir()
  (tmp_path / '.b.partial' / 'old').touch()
  with new_folder(tmp_path / 'b') as folder:
    assert not list(folder.iterdir())


def test_an_empty_folder_is_filled_and_another_one_refused(tmp_path):
  (tmp_path / 'b').mkdir()
  with new_folder(tmp_path / 'b') as folder:
    (folder / 'x').touch()
  with (
    pytest.raises(UserError, match='b: already exists; remove it'),
    new_folder(tmp_path / 'b'),
  ):
    pass
  assert [p.name for p in (tmp_path / 'b').iterdir()] == ['x']
