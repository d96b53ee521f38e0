"""Requests of other sites are refused, and pages load nothing from outside."""

import pytest
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from synermedgen_jax.serving.guard import Guard

PORT = 7860
HOME = f'http://127.0.0.1:{PORT}'


@pytest.fixture
def client():
  guard = Guard(PlainTextResponse('inside'), PORT, 'N0NCE')
  return TestClient(guard, base_url=HOME)


@pytest.mark.parametrize('host', [f'127.0.0.1:{PORT}', f'LocalHost:{PORT}'])
def test_the_own_names_are_answered(client, host):
  assert client.get('/', headers={'host': host}).text == 'inside'


@pytest.mark.parametrize(
  'host',
  [
    'evil.example',
    f'evil.example:{PORT}',
    '127.0.0.1',
    '127.0.0.1:80',
    f'127.0.0.1:{PORT}.evil.example',
    f'192.168.0.2:{PORT}',
    '',
  ],
)
def test_other_names_are_refused(client, host):
  answer = client.get('/', headers={'host': host})
  assert answer.status_code == 403
  assert 'inside' not in answer.text


def post(client, **headers):
  return client.post('/', headers=headers)


def test_only_own_pages_may_post(client):
  assert post(client, origin=HOME).text == 'inside'
  assert post(client).status_code == 403
  for origin in (
    'null',
    'http://evil.example',
    'https://127.0.0.1:7860',
    'http://127.0.0.1:7861',
    # The page has to come from the name that the request goes to.
    f'http://localhost:{PORT}',
  ):
    assert post(client, origin=origin).status_code == 403


def test_a_page_may_load_from_this_server_alone(client):
  for answer in (client.get('/'), post(client)):
    policy = dict(
      part.split(' ', 1)
      for part in answer.headers['content-security-policy'].split('; ')
    )
    assert policy['default-src'] == "'none'"
    assert policy['script-src'] == "'nonce-N0NCE' blob:"
    for name, sources in policy.items():
      allowed = {"'none'", "'self'", 'data:', 'blob:', "'nonce-N0NCE'"}
      allowed |= {"'unsafe-inline'"} if name == 'style-src' else set()
      assert set(sources.split()) <= allowed, name
    assert 'access-control-allow-origin' not in answer.headers
    assert answer.headers['cache-control'] == 'no-store'
    assert answer.headers['x-content-type-options'] == 'nosniff'
