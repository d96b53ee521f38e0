"""A session's folder lasts as long as a page of its browser."""

import types

import pytest
from clocks import Clock

from synermedgen_jax.serving.jobs import Jobs
from synermedgen_jax.serving.sessions import Sessions


@pytest.fixture
def clock():
  return Clock()


@pytest.fixture
def sessions(tmp_path, clock):
  return Sessions(tmp_path, Jobs(), grace=15, clock=clock)


def uploaded(session, place='source'):
  upload = session.begin_upload(place, 'mr.nii.gz')
  (upload.folder / 'mr.nii.gz').write_bytes(b'voxels')
  upload.files.append('mr.nii.gz')
  return upload


def test_tokens_are_long_and_folders_do_not_show_them(sessions):
  first, second = sessions.open(), sessions.open()
  assert first.token != second.token
  assert min(len(first.token), len(second.token)) >= 43  # 256 bits
  for session in (first, second):
    upload = uploaded(session)
    assert session.token not in str(upload.path)
    assert session.folder in upload.path.parents
    assert session.folder.stat().st_mode & 0o077 == 0
  assert sessions.find(first.token) is first
  assert sessions.find('') is None
  assert sessions.find(first.token[:-1]) is None


def test_a_session_without_a_page_is_deleted_after_the_grace(
  sessions, clock, tmp_path
):
  session = sessions.open()
  uploaded(session)
  clock.now = 15
  sessions.sweep()
  assert sessions.find(session.token) is session  # and is seen
  clock.now = 30.5
  sessions.sweep()
  assert sessions.find(session.token) is None
  assert session.closed
  assert not [*tmp_path.iterdir()]


def test_a_session_with_a_page_is_kept(sessions, clock, tmp_path):
  session = sessions.open()
  uploaded(session)
  with sessions.present(session):
    clock.now = 1e6
    with sessions.present(session):
      pass
    clock.now = 2e6
    sessions.sweep()
    assert session.folder.is_dir()
  clock.now += 14
  sessions.sweep()
  assert session.folder.is_dir()
  clock.now += 2
  sessions.sweep()
  assert not [*tmp_path.iterdir()]


def test_an_upload_replaces_that_of_its_place_alone(sessions):
  session = sessions.open()
  old, other = uploaded(session), uploaded(session, 'truth')
  new = uploaded(session)
  assert not old.folder.exists()
  assert other.path.is_file()
  assert session.uploads == {'truth': other, 'source': new}
  session.drop_upload(new)
  assert session.uploads == {'truth': other}


def test_the_oldest_of_many_results_is_deleted(sessions):
  session = sessions.open()
  results = [
    types.SimpleNamespace(folder=session.new_folder()) for _ in range(9)
  ]
  keys = [session.add_result(result) for result in results]
  assert len(set(keys)) == 9
  assert [*session.results] == keys[1:]
  assert not results[0].folder.exists()
  assert results[1].folder.exists()


def test_the_end_deletes_all(sessions, tmp_path):
  for _ in range(2):
    uploaded(sessions.open())
  sessions.close_all()
  assert not [*tmp_path.iterdir()]
