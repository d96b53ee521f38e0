"""Folders of the Hugging Face hub, on a fake one on loopback."""

import os
import subprocess
import sys

import hub_fakes
import pytest

from synermedgen_jax.interop import hub
from synermedgen_jax.interop.hub import Address, HubError

FILES = {'a.json': b'{}', 'b/c.txt': b'text', 'model.py': b'print()'}
PATTERNS = ('a.json', 'b/c.txt')


@pytest.fixture
def fake(tmp_path):
  with hub_fakes.fake_hub(tmp_path / 'cache') as fake:
    yield fake


def test_an_address_names_a_repository_and_a_revision():
  assert Address.parse('hf://o/n') == Address('o/n', 'main')
  assert Address.parse('hf://o/n.x@v1.0') == Address('o/n.x', 'v1.0')
  assert str(Address('o/n', 'v1')) == 'hf://o/n@v1'


@pytest.mark.parametrize(
  'text',
  ['o/n', 'hf://n', 'hf://o/n/x', 'hf://o/n@', 'hf://o/..', 'hf://o/n@a b'],
)
def test_another_text_is_refused(text):
  with pytest.raises(HubError, match=r'expected hf://OWNER/NAME\[@REVISION\]'):
    Address.parse(text)


def test_the_files_of_the_patterns_alone_are_downloaded(fake):
  sha = fake.commit('o/n', FILES)
  folder, address = hub.download('hf://o/n', PATTERNS)
  assert address == Address('o/n', sha)
  names = {
    str(path.relative_to(folder)): path.read_bytes()
    for path in folder.rglob('*')
    if path.is_file()
  }
  assert names == {'a.json': b'{}', 'b/c.txt': b'text'}
  assert not any('model.py' in request for request in fake.requests)


def test_a_revision_is_that_of_its_commit(fake):
  first = fake.commit('o/n', {'a.json': b'1'})
  second = fake.commit('o/n', {'a.json': b'2'})
  for revision, content in (('', b'2'), (f'@{first}', b'1')):
    folder, address = hub.download(f'hf://o/n{revision}', PATTERNS)
    assert (folder / 'a.json').read_bytes() == content
    assert address.revision == (first if revision else second)


def test_files_of_the_cache_are_not_downloaded_again(fake):
  fake.commit('o/n', FILES)
  folder, address = hub.download('hf://o/n', PATTERNS)
  fake.requests.clear()
  assert hub.download(str(address), PATTERNS) == (folder, address)
  assert not any('/resolve/' in request for request in fake.requests)
  with hub_fakes.offline():
    assert hub.download('hf://o/n', PATTERNS) == (folder, address)


@pytest.mark.parametrize(
  ('address', 'message'),
  [
    ('hf://o/absent', 'hf://o/absent@main: no such repository on the hub'),
    ('hf://o/secret', 'hf://o/secret@main: no such repository on the hub'),
    ('hf://o/n@v9', 'hf://o/n@v9: the repository has no such revision'),
  ],
)
def test_what_is_missing_is_named(tmp_path, address, message):
  with hub_fakes.fake_hub(tmp_path, token='hf_other') as fake:
    fake.commit('o/n', FILES)
    fake.commit('o/secret', FILES, private=True)
    with pytest.raises(HubError, match=message) as error:
      hub.download(address, PATTERNS)
  assert '\n' not in str(error.value)


def test_without_network_and_cache_the_remedy_is_named(fake):
  fake.commit('o/n', FILES)
  message = r'hf://o/n@main: the hub cannot be reached.* HF_HUB_CACHE'
  with hub_fakes.offline(), pytest.raises(HubError, match=message):
    hub.download('hf://o/n', PATTERNS)
  assert fake.requests == []


def test_the_environment_selects_endpoint_and_cache(fake, tmp_path):
  sha = fake.commit('o/n', FILES)
  code = (
    'from synermedgen_jax.interop import hub\n'
    f'folder, address = hub.download("hf://o/n", {PATTERNS})\n'
    'print(folder, address)'
  )
  cache = tmp_path / 'other'
  done = subprocess.run(
    [sys.executable, '-c', code],
    env=os.environ | {'HF_ENDPOINT': fake.url, 'HF_HUB_CACHE': str(cache)},
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert done.returncode == 0, done.stderr
  folder, address = done.stdout.split()
  assert address == f'hf://o/n@{sha}'
  assert folder.startswith(str(cache))


@pytest.fixture
def folder(tmp_path):
  folder = tmp_path / 'folder'
  (folder / 'b').mkdir(parents=True)
  (folder / 'a.json').write_bytes(b'[]')
  return folder


@pytest.mark.parametrize('public', [False, True])
def test_a_folder_is_uploaded_in_one_commit(fake, folder, public):
  (folder / 'b' / 'c.txt').write_bytes(b'new')
  address = hub.upload(folder, 'o/new', PATTERNS, public=public)
  created, commit = fake.commits['o/new']
  assert address == f'hf://o/new@{commit[0]}'
  assert commit[1] == created[1] | {'a.json': b'[]', 'b/c.txt': b'new'}
  assert fake.private['o/new'] is not public
  downloaded, _ = hub.download(address, PATTERNS)
  assert (downloaded / 'b' / 'c.txt').read_bytes() == b'new'


def test_files_of_the_patterns_that_the_folder_lacks_are_deleted(fake, folder):
  fake.commit('o/n', FILES, private=True)
  hub.upload(folder, 'o/n', PATTERNS, public=False)
  assert fake.files('o/n')[1] == {'a.json': b'[]', 'model.py': b'print()'}
  assert len(fake.commits['o/n']) == 2


@pytest.mark.parametrize(
  ('private', 'message'),
  [
    (False, 'o/n: is public, not private; add --public'),
    (True, 'o/n: is private, not public; leave out --public'),
  ],
)
def test_another_visibility_is_refused(fake, folder, private, message):
  fake.commit('o/n', FILES, private=private)
  with pytest.raises(HubError, match=message):
    hub.upload(folder, 'o/n', PATTERNS, public=private)
  assert len(fake.commits['o/n']) == 1


def test_an_upload_without_a_token_is_refused(tmp_path, folder):
  with (
    hub_fakes.fake_hub(tmp_path / 'cache', token='') as fake,
    pytest.raises(
      HubError, match=r'o/n: uploading needs a token; set HF_TOKEN'
    ),
  ):
    hub.upload(folder, 'o/n', PATTERNS, public=False)
  assert fake.requests == []


def test_a_token_that_the_hub_refuses_is_one_line(tmp_path, folder):
  with (
    hub_fakes.fake_hub(tmp_path / 'cache', token='hf_other'),
    pytest.raises(HubError, match=r'^o/n: .*401') as error,
  ):
    hub.upload(folder, 'o/n', PATTERNS, public=False)
  assert '\n' not in str(error.value)
