"""A Hugging Face hub on loopback, for `huggingface_hub` in this process."""

import base64
import contextlib
import hashlib
import http.server
import json
import re
import socket
import threading
import urllib.parse
from unittest import mock

from huggingface_hub import constants

TOKEN = 'hf_test'


class Hub:
  """Repositories in memory, with the routes that the library requests.

  Attributes:
    commits: OWNER/NAME -> list of (commit, name -> content), oldest first.
    objects: checksum -> content of each large file (Git LFS) that was uploaded.
    private: OWNER/NAME -> whether it is private.
    requests: method and path of every request.
  """

  def __init__(self):
    self.commits, self.private, self.requests = {}, {}, []
    self.objects = {}
    self.url = ''

  def commit(self, repository, files, *, private=False):
    """Adds a commit with these files alone; returns its hash."""
    history = self.commits.setdefault(repository, [])
    self.private.setdefault(repository, private)
    sha = hashlib.sha1(f'{repository}{len(history)}'.encode()).hexdigest()
    history.append((sha, dict(files)))
    return sha

  def files(self, repository, revision='main'):
    """(commit, name -> content) of a revision, or None."""
    for sha, files in reversed(self.commits.get(repository, [])):
      if revision in ('main', sha):
        return sha, files
    return None


class _Handler(http.server.BaseHTTPRequestHandler):
  protocol_version = 'HTTP/1.1'

  def log_message(self, *_):
    pass

  def _serve(self):
    hub = self.server.hub
    url = urllib.parse.urlsplit(self.path)
    path = urllib.parse.unquote(url.path)
    hub.requests.append(f'{self.command} {path}')
    body = self.rfile.read(int(self.headers.get('Content-Length', 0)))
    status, content, headers = self._answer(hub, path, body)
    if not isinstance(content, bytes):
      content = json.dumps(content).encode()
      headers = {'Content-Type': 'application/json', **headers}
    self.send_response(status)
    for name, value in headers.items():
      self.send_header(name, value)
    self.send_header('Content-Length', str(len(content)))
    self.end_headers()
    if self.command != 'HEAD':
      self.wfile.write(content)

  do_GET = do_HEAD = do_POST = do_PUT = _serve

  def _answer(self, hub, path, body):
    allowed = self.headers.get('Authorization') == f'Bearer {TOKEN}'
    if self.command == 'POST' and not allowed:
      return 401, {'error': 'Invalid token'}, {}
    if self.command == 'PUT':
      hub.objects[path.rpartition('/')[2]] = body
      return 200, {}, {}
    if path.endswith('.git/info/lfs/objects/batch'):
      rows = [
        {**wanted, 'actions': {'upload': {'href': f'{hub.url}/objects/{oid}'}}}
        for wanted in json.loads(body)['objects']
        for oid in [wanted['oid']]
      ]
      return 200, {'transfer': 'basic', 'objects': rows}, {}
    if path == '/api/validate-yaml':
      return 200, {'errors': [], 'warnings': []}, {}
    if path == '/api/repos/create':
      asked = json.loads(body)
      repository = f'{asked["organization"]}/{asked["name"]}'
      private = asked.get('private') or asked.get('visibility') == 'private'
      hub.commit(repository, {'.gitattributes': b''}, private=bool(private))
      return 200, {'url': f'{hub.url}/{repository}'}, {}
    match = re.fullmatch(
      r'/(?:api/models/)?([^/]+/[^/]+)(?:/(\w+)/([^/]+)(?:/(.*))?)?', path
    )
    repository, action, revision, name = match.groups()
    if repository not in hub.commits or (hub.private[repository] > allowed):
      error = {'X-Error-Code': 'RepoNotFound'}
      return 404, {'error': 'Repository not found'}, error
    found = hub.files(repository, revision or 'main')
    if found is None:
      error = {'X-Error-Code': 'RevisionNotFound'}
      return 404, {'error': 'Invalid rev id'}, error
    return self._of_repository(hub, repository, action, name, found, body)

  def _of_repository(self, hub, repository, action, name, found, body):
    sha, files = found
    if action in (None, 'revision'):
      about = {'id': repository, 'sha': sha, 'private': hub.private[repository]}
      about['siblings'] = [{'rfilename': name} for name in files]
      return 200, about, {}
    if action == 'tree':
      rows = [
        {'type': 'file', 'path': n, 'size': len(c), 'oid': _oid(c)}
        for n, c in files.items()
      ]
      return 200, rows, {}
    if action == 'resolve':
      headers = {'X-Repo-Commit': sha, 'ETag': f'"{_oid(files[name])}"'}
      return 200, files[name], headers
    if action == 'preupload':
      rows = [
        {
          'path': f['path'],
          'uploadMode': 'lfs' if _is_large(f['path']) else 'regular',
          'shouldIgnore': False,
        }
        for f in json.loads(body)['files']
      ]
      return 200, {'files': rows}, {}
    assert action == 'commit'
    files = dict(files)
    for line in body.splitlines():
      change = json.loads(line)
      value = change['value']
      if change['key'] == 'file':
        files[value['path']] = base64.b64decode(value['content'])
      elif change['key'] == 'lfsFile':
        files[value['path']] = hub.objects[value['oid']]
      elif change['key'] == 'deletedFile':
        del files[value['path']]
    sha = hub.commit(repository, files)
    url = f'{hub.url}/{repository}/commit/{sha}'
    return 200, {'success': True, 'commitOid': sha, 'commitUrl': url}, {}


def _is_large(name):
  return name.endswith('.safetensors')


def _oid(content):
  return hashlib.sha1(b'blob %d\0' % len(content) + content).hexdigest()


@contextlib.contextmanager
def fake_hub(cache, *, token=TOKEN):
  """A hub that `huggingface_hub` uses, with its cache in a folder.

  Every connection to another machine fails the test.
  """
  hub = Hub()
  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), _Handler)
  server.hub = hub
  hub.url = f'http://127.0.0.1:{server.server_port}'
  thread = threading.Thread(target=server.serve_forever, daemon=True)
  thread.start()
  template = hub.url + '/{repo_id}/resolve/{revision}/{filename}'
  values = {
    'ENDPOINT': hub.url,
    'HUGGINGFACE_CO_URL_TEMPLATE': template,
    'HF_HUB_CACHE': str(cache),
    'HF_TOKEN_PATH': str(cache / 'no_token'),
    'HF_STORED_TOKENS_PATH': str(cache / 'no_tokens'),
    'HF_HUB_DISABLE_XET': True,
    'HF_HUB_DISABLE_PROGRESS_BARS': True,
  }
  environment = {'HF_TOKEN': token}
  with contextlib.ExitStack() as stack:
    for name, value in values.items():
      stack.enter_context(mock.patch.object(constants, name, value))
    stack.enter_context(mock.patch.dict('os.environ', environment))
    stack.enter_context(_loopback_alone())
    try:
      yield hub
    finally:
      server.shutdown()
      server.server_close()


@contextlib.contextmanager
def _loopback_alone():
  connect = socket.socket.connect

  def guarded(self, address):
    assert address[0] in ('127.0.0.1', 'localhost'), address
    return connect(self, address)

  with mock.patch.object(socket.socket, 'connect', guarded):
    yield


@contextlib.contextmanager
def offline():
  """No request is sent, as with HF_HUB_OFFLINE=1."""
  with mock.patch.object(constants, 'HF_HUB_OFFLINE', True):
    yield
