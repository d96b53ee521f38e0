"""The routes of the app: uploads, jobs, pages, downloads, refusals."""

import gzip
import json
import os
import re
import shutil
import socket
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from dicom_files import write_series
from serving_fakes import (
  CT,
  FakeModel,
  eventually,
  predicted,
  serve,
  write_pair,
)
from starlette.testclient import TestClient

from synermedgen_jax.inference.sidecar import NOTICE
from synermedgen_jax.serving import work
from synermedgen_jax.serving.server import make_app
from synermedgen_jax.slices.volumes import read_volume

PORT = 7860
HOME = f'http://127.0.0.1:{PORT}'
LIMIT = 1_000_000
TO_CT = {'source': 'mr', 'region': 'brain', 'target': 'ct'}


class Browser:
  """A browser with its own cookies."""

  def __init__(self, app):
    self.http = TestClient(
      app,
      base_url=HOME,
      headers={'origin': HOME},
      raise_server_exceptions=False,
    )
    self.token = self.get('/').cookies[f'synermedgen_{PORT}']
    self.jobs = app.state.jobs

  def get(self, path):
    return self.http.get(path)

  def upload(self, place, path, **query):
    query = {'name': path.name} | query
    return self.http.post(
      f'/uploads/{place}', params=query, content=path.read_bytes()
    )

  def start(self, kind, **asked):
    return self.http.post(f'/jobs/{kind}', json=asked)

  def run(self, kind, **asked):
    """The last state of a job."""
    answer = self.start(kind, **asked)
    assert answer.status_code == 200, answer.text
    key = answer.json()['job']

    def ended():
      state = self.jobs.states(self.token)[key]
      return state if state['state'] in ('done', 'failed', 'stopped') else None

    return eventually(ended)


@pytest.fixture
def root(tmp_path):
  folder = tmp_path / 'root'
  folder.mkdir()
  return folder


@pytest.fixture
def model():
  return FakeModel()


@pytest.fixture
def app(root, model):
  made = make_app(model, root, port=PORT, limit=LIMIT)
  with TestClient(made, base_url=HOME):  # its lifespan
    yield made
    model.gate.set()


@pytest.fixture
def browser(app):
  return Browser(app)


@pytest.fixture
def pair(tmp_path):
  return write_pair(tmp_path / 'pair')


@pytest.fixture
def result(browser, pair):
  """The address of a translation of mr.nii.gz."""
  browser.upload('source', pair / 'mr.nii.gz')
  browser.run('read', source='mr')
  state = browser.run('translate', **TO_CT)
  assert state['state'] == 'done', state
  return f'/results/{state["result"]["result"]}'


def test_a_volume_is_read_translated_and_downloaded(
  browser, pair, result, tmp_path
):
  page = browser.get(result)
  assert page.status_code == 200
  assert 'mr.nii.gz: is a ball.' in page.text
  assert '10 of 16' in page.text
  output = predicted(pair / 'mr.nii.gz', tmp_path / 'mr_ct.nii.gz')
  download = browser.get(f'{result}/mr_ct.nii.gz')
  # A gzip header has a time.
  assert download.content[10:] == output.read_bytes()[10:]
  assert 'attachment' in download.headers['content-disposition']
  record = browser.get(f'{result}/mr_ct.json').json()
  assert record['Description'].startswith(NOTICE)
  assert record['Sources'] == ['mr.nii.gz']
  assert record['Warnings'] == ['mr.nii.gz: is a ball.']


def test_a_reading_says_what_the_volume_is(browser, pair):
  browser.upload('source', pair / 'mr.nii.gz')
  said = browser.run('read', source='mr')['result']
  assert said == {
    'title': 'mr.nii.gz: 24 × 20 × 8 voxels of 2 × 2 × 3 mm.',
    'level': 'ok',
    'lines': ['Read as MRI in 16 of 16 slices.'],
  }


def test_another_family_is_translated_only_where_the_user_insists(
  browser, pair
):
  browser.upload('source', pair / 'ct.nii.gz')
  assert browser.start('translate', **TO_CT).status_code == 409  # not read
  said = browser.run('read', source='mr')['result']
  assert said['level'] == 'refused'
  assert said['lines'][0].startswith('ct.nii.gz: as MRI: values from -1000')
  assert said['lines'][1] == (
    'Stated as MRI, but the model reads CT in 16 of 16 slices.'
  )
  refused = browser.start('translate', **TO_CT)
  assert refused.status_code == 409
  assert 'translate anyway' in refused.json()['error']
  assert browser.run('translate', **TO_CT, anyway='1')['state'] == 'done'
  # The same volume under its own name needs nothing.
  assert browser.run('read', source='ct')['result']['level'] == 'ok'
  as_ct = {'source': 'ct', 'region': 'brain', 'target': 'mr'}
  assert browser.run('translate', **as_ct)['state'] == 'done'


def test_only_routes_that_are_offered_are_translated(browser, pair):
  browser.upload('source', pair / 'mr.nii.gz')
  browser.run('read', source='mr')
  for asked, reason in (
    (TO_CT | {'region': 'pelvis'}, 'was not trained on pelvis_mr_to_ct'),
    (TO_CT | {'target': 'pet'}, 'No route mr->pet'),
    (TO_CT | {'source': '<b>'}, 'Unknown modality'),
    ({}, 'Unknown region'),
  ):
    answer = browser.start('translate', **asked)
    assert answer.status_code == 400
    assert reason in answer.json()['error']
    assert '\n' not in answer.json()['error']


def test_a_true_volume_is_compared(browser, pair, result):
  key = result.removeprefix('/results/')
  browser.upload('truth', pair / 'ct.nii.gz')
  assert browser.run('compare', result=key)['state'] == 'done'
  page = browser.get(result).text
  assert re.search(r'Mean absolute difference \d', page)
  assert '"role": "truth"' in page
  browser.upload('truth', pair / 'mr.nii.gz')
  state = browser.run('compare', result=key)
  assert state['state'] == 'failed'
  assert state['error'].startswith('mr.nii.gz: as CT in HU: values from')


def test_questions_about_a_pair(browser, pair):
  browser.upload('first', pair / 'mr.nii.gz')
  missing = browser.start('ask', **TO_CT)
  assert missing.json() == {'error': 'Drop a volume first.'}
  browser.upload('second', pair / 'ct.nii.gz')
  said = browser.run('ask', **TO_CT)['result']
  assert said['rows'][0]['right'] == '1 of 2'
  assert said['rows'][0]['chance'] == '0.25'
  assert len(said['question']['panels']) == 5
  assert said['lines'] == []
  browser.upload('second', pair / 'mr.nii.gz')
  (line,) = browser.run('ask', **TO_CT)['result']['lines']
  assert line.startswith('mr.nii.gz: as CT in HU')


def test_what_is_no_volume_gets_the_readers_line(browser, tmp_path, root):
  for name, content, reason in (
    ('notes.pdf', b'%PDF-1.7', 'notes.pdf: not a volume; expected a name'),
    ('x.nii.gz', b'nonsense', 'x.nii.gz: cannot be read'),
    ('x.zip', b'nonsense', 'x.zip: cannot be unpacked'),
    ('x.dcm', b'nonsense', 'x.dcm: is one DICOM file'),
  ):
    path = tmp_path / name
    path.write_bytes(content)
    browser.upload('source', path)
    state = browser.run('read', source='mr')
    assert state['state'] == 'failed'
    assert state['error'].startswith(reason)
    assert '\n' not in state['error']
    assert str(root) not in state['error']


def test_several_files_are_one_series(browser, tmp_path):
  for i in range(3):
    path = tmp_path / f'IM{i}'
    path.write_bytes(b'no DICOM')
    more = {'more': answer.json()['upload']} if i else {}
    answer = browser.upload('source', path, **more)
  assert answer.json()['name'] == 'IM0 and 2 more files'
  error = browser.run('read', source='mr')['error']
  assert error.startswith('IM0 and 2 more files: ')


def test_two_pages_do_not_mix_their_files(browser, tmp_path, root):
  for name in ('a0', 'a1', 'b0', 'b1'):
    (tmp_path / name).write_bytes(name.encode())
  first = browser.upload('source', tmp_path / 'a0').json()['upload']
  second = browser.upload('source', tmp_path / 'b0').json()['upload']
  late = browser.upload('source', tmp_path / 'a1', more=first)
  assert late.status_code == 404
  assert late.json() == {
    'error': 'a1: another volume was dropped in its place meanwhile; drop all '
    'its files again.'
  }
  answer = browser.upload('source', tmp_path / 'b1', more=second)
  assert answer.json() == {'name': 'b0 and 1 more files', 'upload': second}
  files = [path for path in root.rglob('*') if path.is_file()]
  assert sorted(path.name for path in files) == ['b0', 'b1']


@pytest.mark.parametrize('packed', [False, True])
def test_a_dicom_series_comes_as_files_or_as_a_zip(
  browser, pair, tmp_path, packed
):
  folder = tmp_path / 'series'
  write_series(folder, read_volume(pair / 'ct.nii.gz'), 'CT', names='IM{}')
  if packed:
    path = Path(shutil.make_archive(tmp_path / 'ct', 'zip', folder))
    browser.upload('source', path)
    name = 'ct.zip'
  else:
    more = {}
    for i in range(8):
      answer = browser.upload('source', folder / f'IM{i}', **more)
      more = {'more': answer.json()['upload']}
    name = 'IM0 and 7 more files'
  said = browser.run('read', source='ct')['result']
  assert said['level'] == 'ok'
  assert said['title'] == f'{name}: 24 × 20 × 8 voxels of 2 × 2 × 3 mm.'
  asked = {'source': 'ct', 'region': 'brain', 'target': 'mr'}
  state = browser.run('translate', **asked)
  assert state['state'] == 'done', state
  missing = browser.run('read', source='ct', series='9')['error']
  assert missing.startswith(f"{name}: no series match '9'")
  assert browser.start('translate', **asked, series='9').status_code == 409


def test_a_waiting_translation_reads_the_series_of_its_request(
  app, browser, pair, tmp_path, model, monkeypatch
):
  study = tmp_path / 'study'
  for number, name in (('1', 'mr'), ('2', 'ct')):
    volume = read_volume(pair / f'{name}.nii.gz')
    write_series(study / name, volume, name.upper(), SeriesNumber=number)
  browser.upload('source', Path(shutil.make_archive(study, 'zip', study)))
  assert browser.run('read', source='mr', series='1')['state'] == 'done'
  other = Browser(app)
  other.upload('source', pair / 'mr.nii.gz')
  other.run('read', source='mr')
  model.gate.clear()
  other.start('translate', **TO_CT)
  assert model.began.wait(10)
  read = []

  def noted(path, *, series='', **options):
    read.append(series)
    return read_volume(path, series=series, **options)

  monkeypatch.setattr(work, 'read_volume', noted)
  key = browser.start('translate', **TO_CT, series='1').json()['job']
  browser.start('read', source='mr', series='2')  # while it waits
  assert browser.start('translate', **TO_CT, series='2').status_code == 409
  model.gate.set()
  said = browser.run('read', source='mr', series='2')['result']
  assert said['level'] == 'refused'  # a CT
  assert read[0] == '1'
  result = browser.jobs.states(browser.token)[key]['result']['result']
  record = browser.get(f'/results/{result}/study_ct.json').json()
  assert record['Series'] == ['1']
  # Each series keeps its own reading.
  assert browser.start('translate', **TO_CT, series='2').status_code == 409
  assert browser.run('translate', **TO_CT, series='1')['state'] == 'done'


def test_browsers_do_not_see_each_other(app, browser, pair, result, root):
  other = Browser(app)
  assert other.token != browser.token
  assert browser.get(result).status_code == 200
  missing = other.get(result)
  assert missing.status_code == 404
  assert 'does not exist any more' in missing.text
  assert other.get(f'{result}/mr_ct.nii.gz').status_code == 404
  key = result.removeprefix('/results/')
  other.upload('truth', pair / 'ct.nii.gz')
  assert other.start('compare', result=key).status_code == 404
  assert other.start('translate', **TO_CT).json() == {
    'error': 'Drop a volume first.'
  }
  assert other.jobs.states(other.token) == {}


def test_only_the_two_files_of_a_result_are_sent(browser, result):
  for name in ('viewer.html', '..%2F..%2Fetc%2Fpasswd', '%2Fetc%2Fpasswd'):
    answer = browser.get(f'{result}/{name}')
    assert answer.status_code == 404
    assert list(answer.json()) == ['error']


def test_addresses_that_do_not_exist_get_one_line(browser, pair):
  for answer in (
    browser.get('/etc/passwd'),
    browser.start('compile'),
    browser.upload('elsewhere', pair / 'mr.nii.gz'),
    browser.http.put('/uploads/source'),
  ):
    assert answer.status_code in (404, 405)
    assert list(answer.json()) == ['error']


def test_a_request_that_is_no_object_of_texts_is_refused(browser):
  for content in (
    b'{',
    b'[]',
    b'{"a": 1}',
    b'"x"',
    b'{"a": "%s"}' % (b'x' * 10**5),
  ):
    answer = browser.http.post('/jobs/read', content=content)
    assert answer.status_code == 400
    assert 'The request is' in answer.json()['error']


def test_without_a_session_nothing_is_stored(app, pair, root):
  client = TestClient(app, base_url=HOME, headers={'origin': HOME})
  answer = client.post('/uploads/source?name=mr.nii.gz', content=b'x')
  assert answer.status_code == 404
  assert answer.json() == {
    'error': 'This page was left too long; load it again.'
  }
  assert client.get('/events').status_code == 404
  assert not [*root.iterdir()]


def test_a_bug_is_one_line_and_the_app_goes_on(browser, pair, model):
  model.read = None
  browser.upload('source', pair / 'mr.nii.gz')
  state = browser.run('read', source='mr')
  assert state['error'].startswith('The app failed (TypeError); the terminal')
  del model.read
  assert browser.run('read', source='mr')['state'] == 'done'


def test_the_notice_and_the_routes_are_on_every_page(browser, result):
  for path in ('/', '/ask', result, '/results/unknown'):
    page = browser.get(path).text
    assert f'role="note">{NOTICE}<' in page
    settings = re.search(r'id="settings">(.*?)</script>', page)[1]
    assert json.loads(settings) == {
      'limit': LIMIT,
      'routes': [
        {
          'source': ['mr', 'MRI'],
          'region': ['brain', 'brain'],
          'target': ['ct', 'CT'],
        },
        {
          'source': ['ct', 'CT'],
          'region': ['brain', 'brain'],
          'target': ['mr', 'MRI'],
        },
      ],
    }


def test_names_from_users_cannot_be_elements_of_a_page(browser, pair, tmp_path):
  name = '<img src=x onerror=alert(1)>.nii.gz'
  browser.upload('source', pair / 'mr.nii.gz', name=name)
  browser.run('read', source='mr')
  state = browser.run('translate', **TO_CT)
  page = browser.get(f'/results/{state["result"]["result"]}').text
  assert '<img' not in page


def test_the_queue_says_how_many_jobs_come_first(app, browser, pair, model):
  other = Browser(app)
  for one in (browser, other):
    one.upload('source', pair / 'mr.nii.gz')
    one.run('read', source='mr')
  model.gate.clear()
  browser.start('translate', **TO_CT)
  assert model.began.wait(10)
  key = other.start('translate', **TO_CT).json()['job']
  waiting = other.jobs.states(other.token)[key]
  assert (waiting['state'], waiting['ahead']) == ('queued', 1)
  browser.http.post('/jobs/translate/stop')
  model.gate.set()
  eventually(lambda: other.jobs.states(other.token)[key]['state'] == 'done')
  states = browser.jobs.states(browser.token).values()
  assert 'stopped' in {state['state'] for state in states}


def test_a_stopped_translation_leaves_no_folder(browser, pair, model, root):
  browser.upload('source', pair / 'mr.nii.gz')
  browser.run('read', source='mr')
  model.gate.clear()
  key = browser.start('translate', **TO_CT).json()['job']
  assert model.began.wait(10)
  (session,) = root.iterdir()
  assert len([*session.iterdir()]) == 2
  browser.http.post('/jobs/translate/stop')
  model.gate.set()
  eventually(
    lambda: browser.jobs.states(browser.token)[key]['state'] == 'stopped'
  )
  (upload,) = session.iterdir()
  assert [path.name for path in upload.iterdir()] == ['mr.nii.gz']


def test_the_end_of_the_app_deletes_its_folder(root, model, pair):
  made = make_app(model, root, port=PORT, limit=LIMIT)
  with TestClient(made, base_url=HOME):
    one = Browser(made)
    one.upload('source', pair / 'mr.nii.gz')
    assert [*root.rglob('mr.nii.gz')]
  assert not root.exists()


def raw(port, head):
  """Sends the head of a request and a few bytes; returns the answer."""
  with socket.create_connection(('127.0.0.1', port), timeout=10) as sent:
    sent.sendall('\r\n'.join([*head, '', '']).encode() + b'0' * 1000)
    answer = b''
    while part := sent.recv(4096):
      answer += part
  return answer.decode()


def test_a_declared_3_gb_upload_is_refused_before_its_bytes(tmp_path):
  with serve(tmp_path / 'root', limit=2_048_000_000) as served:
    session = served.state.sessions.open()
    answer = raw(
      served.port,
      [
        'POST /uploads/source?name=huge.nii HTTP/1.1',
        f'Host: 127.0.0.1:{served.port}',
        f'Origin: {served.url}',
        f'Cookie: synermedgen_{served.port}={session.token}',
        'Content-Length: 3000000000',
      ],
    )
    assert answer.startswith('HTTP/1.1 413 ')
    assert 'The upload has 3000 MB, at most 2048 MB are accepted' in answer
    assert not [*served.root.iterdir()]


def test_an_upload_without_a_length_ends_at_the_limit(browser, root):
  def endless():
    for _ in range(2 * LIMIT // 10_000):
      yield b'0' * 10_000

  answer = browser.http.post('/uploads/source?name=x.nii', content=endless())
  assert answer.status_code == 413
  assert not [path for path in root.rglob('*') if path.is_file()]


@pytest.mark.parametrize(
  'name', ['w.nii.gz', 'w.nii', 'w.mha', 'w.Mha', 'w.nrrd', 'w.NRRD']
)
def test_a_packed_volume_is_refused_by_its_size_in_memory(
  browser, tmp_path, name
):
  volume = np.zeros((100, 100, 101), np.uint8)
  volume[:50] = 1
  path = tmp_path / name
  if '.nii' in name:  # gzip under every name
    packed = nib.Nifti1Image(volume, np.eye(4)).to_bytes()
    path.write_bytes(gzip.compress(packed))
  else:
    written = tmp_path / f'written{path.suffix.lower()}'
    sitk.WriteImage(sitk.GetImageFromArray(volume), str(written), True)
    written.rename(path)
  assert path.stat().st_size < LIMIT / 10
  browser.upload('source', path)
  assert browser.run('read', source='mr')['error'] == (
    f'{name} in memory has 4 MB, at most 1 MB are accepted; --max_upload_mb of '
    'synermedgen app raises the limit.'
  )


def test_ct_values_are_whole_numbers(browser, result, tmp_path):
  path = tmp_path / 'ct.nii.gz'
  path.write_bytes(browser.get(f'{result}/mr_ct.nii.gz').content)
  header = nib.load(path).header
  assert header.get_data_dtype() == 'int16'
  assert CT.unit == 'HU'
  assert 'not for diagnosis' in header['descrip'].item().decode()


def test_an_upload_that_breaks_off_leaves_nothing(tmp_path):
  def stored():
    # Unlike `rglob`, it passes over folders that are deleted meanwhile.
    return any('x.nii' in files for *_, files in os.walk(served.root))

  with serve(tmp_path / 'root') as served:
    session = served.state.sessions.open()
    head = [
      'POST /uploads/source?name=x.nii HTTP/1.1',
      f'Host: 127.0.0.1:{served.port}',
      f'Origin: {served.url}',
      f'Cookie: synermedgen_{served.port}={session.token}',
      'Content-Length: 100000',
    ]
    with socket.create_connection(('127.0.0.1', served.port)) as sent:
      sent.sendall('\r\n'.join([*head, '', '']).encode() + b'0' * 50_000)
      eventually(stored)
    eventually(lambda: not stored())
    assert not session.uploads
