"""Routes of the app: pages, uploads, jobs, events, downloads.

app = make_app(model, root, port=7860)

A browser has a session, which a cookie names. It sends files to a place of a
page ('source', 'truth', 'first', 'second'), starts jobs about them, and gets
their states as server-sent events.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import (
  FileResponse,
  HTMLResponse,
  JSONResponse,
  Response,
  StreamingResponse,
)
from starlette.routing import Route as Address

from synermedgen_jax.core.errors import UserError
from synermedgen_jax.core.modalities import Modality, Region, Route, find_route
from synermedgen_jax.serving import pages, uploads, work
from synermedgen_jax.serving.guard import Guard
from synermedgen_jax.serving.jobs import Jobs
from synermedgen_jax.serving.model import Model
from synermedgen_jax.serving.sessions import Session, Sessions, Upload

PLACES = ('source', 'truth', 'first', 'second')
_TICK = 0.2  # seconds between looks at the states of jobs
_ALIVE = 5.0  # seconds between signs of life in a stream
_MOST_BODY = 10_000  # bytes of a request without a file


class Missing(UserError):
  """What a request names does not exist (any more); one line."""


class App:
  """The state behind the routes.

  Attributes:
    sessions, jobs: see there.
    ending: whether the server is about to end, so that streams end.
  """

  def __init__(
    self,
    model: Model,
    root: Path,
    *,
    port: int,
    limit: int,
    nonce: str,
  ):
    """Begins without a session; see `make_app`."""
    self.jobs = Jobs()
    self.sessions = Sessions(root, self.jobs)
    self.ending: Callable[[], bool] = lambda: False
    self._model = model
    self._root = root
    self._cookie = f'synermedgen_{port}'  # cookies do not know ports
    self._limit = limit
    self._nonce = nonce

  @contextlib.asynccontextmanager
  async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
    """Closes sessions whose browsers have left, and all at the end."""
    del app

    async def sweep() -> None:
      while True:
        await asyncio.sleep(1)
        self.sessions.sweep()

    sweeping = asyncio.create_task(sweep())
    try:
      yield
    finally:
      sweeping.cancel()
      self.sessions.close_all()
      await asyncio.to_thread(self.jobs.close)
      shutil.rmtree(self._root, ignore_errors=True)

  def _session(self, request: Request) -> Session:
    """The session of a request; `Missing` if it is closed."""
    session = self.sessions.find(request.cookies.get(self._cookie, ''))
    if session is None:
      raise Missing('This page was left too long; load it again.')
    return session

  def _page(self, request: Request, name: str, **values: Any) -> Response:
    """A page, whose session is opened if there is none."""
    session = self.sessions.find(request.cookies.get(self._cookie, ''))
    session = session or self.sessions.open()
    page = pages.page(
      name, self._model, limit=self._limit, nonce=self._nonce, **values
    )
    response = HTMLResponse(page)
    response.set_cookie(
      self._cookie, session.token, httponly=True, samesite='strict'
    )
    return response

  async def translate_page(self, request: Request) -> Response:
    """The page that translates a volume."""
    return self._page(request, 'translate.html')

  async def ask_page(self, request: Request) -> Response:
    """The page that asks about two volumes."""
    return self._page(request, 'ask.html')

  async def result_page(self, request: Request) -> Response:
    """The page of a translation of the session."""
    session = self.sessions.find(request.cookies.get(self._cookie, ''))
    key = request.path_params['key']
    result = session and session.results.get(key)
    if not result:
      page = self._page(request, 'missing.html')
      page.status_code = 404
      return page
    return self._page(request, 'result.html', key=key, result=result)

  async def download(self, request: Request) -> Response:
    """The NIfTI file or the record of a result."""
    result = self._result(self._session(request), request.path_params['key'])
    name = request.path_params['name']
    if name not in (result.volume, result.record):
      raise Missing(f'{name}: is no file of this result.')
    return FileResponse(result.folder / name, filename=name)

  async def upload(self, request: Request) -> Response:
    """Takes a file, and returns the id of its upload.

    `more` is the id of the upload that the file is added to.
    """
    session = self._session(request)
    place = request.path_params['place']
    if place not in PLACES:
      raise Missing(f'{place}: is no place of a page.')
    query = request.query_params
    name, more = query.get('name', ''), query.get('more')
    upload = session.uploads.get(place) if more else None
    if more and (upload is None or upload.folder.name != more):
      raise Missing(
        f'{uploads.safe_name(name)}: another volume was dropped in its place '
        'meanwhile; drop all its files again.'
      )
    size = _declared(request)
    uploads.check_declared(session, upload, size, self._limit)
    upload = upload or session.begin_upload(place, name)
    with self.sessions.present(session):
      try:
        await uploads.receive(
          request.stream(), session, upload, name, self._limit
        )
      except BaseException:
        session.drop_upload(upload)
        raise
    return JSONResponse({'name': upload.name, 'upload': upload.folder.name})

  async def start(self, request: Request) -> Response:
    """Starts a job, and returns its id."""
    session = self._session(request)
    kind = request.path_params['kind']
    asked = await _json(request)
    runs = {
      'read': self._read,
      'translate': self._translate,
      'compare': self._compare,
      'ask': self._ask,
    }
    if kind not in runs:
      raise Missing(f'{kind}: is no kind of job.')
    run = runs[kind](session, asked)
    if kind == 'read':  # only the last one matters
      self.jobs.stop(session.token, kind)
    return JSONResponse({'job': self.jobs.submit(session.token, kind, run).id})

  async def stop(self, request: Request) -> Response:
    """Ends the jobs of a kind."""
    session = self._session(request)
    self.jobs.stop(session.token, request.path_params['kind'])
    return JSONResponse({})

  async def events(self, request: Request) -> Response:
    """The states of the session's jobs, whenever they change."""
    session = self._session(request)

    async def stream() -> AsyncIterator[str]:
      with self.sessions.present(session):
        last, quiet = '', 0.0
        while not (session.closed or self.ending()):
          states = json.dumps(self.jobs.states(session.token))
          if states != last:
            last, quiet = states, 0.0
            yield f'data: {states}\n\n'
          elif quiet >= _ALIVE:
            quiet = 0.0
            yield ':\n\n'
          await asyncio.sleep(_TICK)
          quiet += _TICK

    return StreamingResponse(stream(), media_type='text/event-stream')

  def _uploaded(self, session: Session, place: str) -> Upload:
    upload = session.uploads.get(place)
    if upload is None or not upload.files:
      raise Missing('Drop a volume first.')
    return upload

  def _result(self, session: Session, key: str) -> work.Result:
    result = session.results.get(key)
    if result is None:
      raise Missing('This result is deleted; translate again.')
    return result

  def _route(self, asked: dict[str, str]) -> Route:
    """The route of a request, one that is offered."""
    route = find_route(
      Region.parse(asked.get('region', '')),
      [Modality.parse(asked.get('source', ''))],
      Modality.parse(asked.get('target', '')),
    )
    if route not in self._model.routes:
      raise UserError(f'{self._model.title}: was not trained on {route.name}.')
    return route

  def _read(self, session: Session, asked: dict[str, str]) -> work.Run:
    upload = self._uploaded(session, 'source')
    modality = Modality.parse(asked.get('source', ''))
    series = asked.get('series', '')
    return work.read(self._model, upload, series, modality, self._limit)

  def _translate(self, session: Session, asked: dict[str, str]) -> work.Run:
    upload, route = self._uploaded(session, 'source'), self._route(asked)
    series = asked.get('series', '')
    work.check_allowed(upload, series, route.source, bool(asked.get('anyway')))
    return work.translate(
      self._model, session, upload, series, route, self._limit, self._nonce
    )

  def _compare(self, session: Session, asked: dict[str, str]) -> work.Run:
    result = self._result(session, asked.get('result', ''))
    truth = self._uploaded(session, 'truth')
    series = asked.get('series', '')
    return work.compare(result, truth, series, self._limit, self._nonce)

  def _ask(self, session: Session, asked: dict[str, str]) -> work.Run:
    if not self._model.answers:
      raise UserError(f'{self._model.title}: answers no questions.')
    both = (
      self._uploaded(session, 'first'),
      self._uploaded(session, 'second'),
    )
    return work.ask(self._model, both, self._route(asked), self._limit)


def _declared(request: Request) -> int:
  """The declared bytes of a request; 0 if there is no such header."""
  try:
    return max(int(request.headers.get('content-length', '0')), 0)
  except ValueError:
    return 0


async def _json(request: Request) -> dict[str, str]:
  """The body of a request: an object of texts."""
  body = b''
  async for chunk in request.stream():
    body += chunk
    if len(body) > _MOST_BODY:
      raise UserError('The request is too long.')
  try:
    values = json.loads(body)
  except ValueError:
    values = None
  if not isinstance(values, dict) or not all(
    isinstance(value, str) for value in values.values()
  ):
    raise UserError('The request is not an object of texts.')
  return values


def _status(error: Exception) -> int:
  kinds = {uploads.TooLarge: 413, Missing: 404, work.RefusedError: 409}
  return next((s for kind, s in kinds.items() if isinstance(error, kind)), 400)


async def _user_error(request: Request, error: Exception) -> Response:
  """One line for the page."""
  del request
  return JSONResponse({'error': str(error)}, _status(error))


async def _http_error(request: Request, error: Exception) -> Response:
  """One line for an address that does not exist."""
  del request
  assert isinstance(error, HTTPException)
  return JSONResponse({'error': f'{error.detail}.'}, error.status_code)


async def _left(request: Request, error: Exception) -> Response:
  """A browser that left during an upload reads no answer."""
  del request, error
  return Response(status_code=400)


async def _bug(request: Request, error: Exception) -> Response:
  """One line in the page; uvicorn prints the traceback."""
  del request
  line = (
    f'The app failed ({type(error).__name__}); the terminal in which it runs '
    'shows the traceback.'
  )
  return JSONResponse({'error': line}, 500)


def make_app(
  model: Model,
  root: Path,
  *,
  port: int,
  limit: int = 2048 * uploads.MB,
) -> Guard:
  """The app, for a server on 127.0.0.1.

  Args:
    model: the model; the thread of the app's jobs calls it.
    root: an empty folder for sessions, which is deleted at the end.
    port: port of the server.
    limit: bytes of an upload; see `uploads`.

  Returns:
    The app within its `Guard`, whose `state` is an `App`.
  """
  nonce = pages.new_nonce()
  state = App(model, root, port=port, limit=limit, nonce=nonce)
  app = Starlette(
    routes=[
      Address('/', state.translate_page),
      Address('/ask', state.ask_page),
      Address('/results/{key}', state.result_page),
      Address('/results/{key}/{name}', state.download),
      Address('/uploads/{place}', state.upload, methods=['POST']),
      Address('/jobs/{kind}', state.start, methods=['POST']),
      Address('/jobs/{kind}/stop', state.stop, methods=['POST']),
      Address('/events', state.events),
    ],
    exception_handlers={
      UserError: _user_error,
      HTTPException: _http_error,
      ClientDisconnect: _left,
      Exception: _bug,
    },
    lifespan=state.lifespan,
  )
  return Guard(app, port, nonce, state)
