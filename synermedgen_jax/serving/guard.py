"""Refuses requests that other sites cause, and forbids pages to leave.

A site can name 127.0.0.1 as its own address (DNS rebinding), and any site can
send a form to it. So the header Host has to name this server, and a request
that changes something has to come from one of its pages.
"""

from __future__ import annotations

from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HOSTS = ('127.0.0.1', 'localhost')
_SAFE = ('GET', 'HEAD')


class Guard:
  """ASGI middleware, around all others.

  Attributes:
    state: that of the app.
  """

  def __init__(self, app: ASGIApp, port: int, nonce: str, state: Any = None):
    """Wraps an app.

    Args:
      app: the app.
      port: port of the server.
      nonce: allows the scripts of the app's own pages.
      state: see above.
    """
    self.state = state
    self._app = app
    self._hosts = {f'{host}:{port}' for host in _HOSTS}
    if port == 80:
      self._hosts |= set(_HOSTS)
    self._nonce = nonce

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    """Answers a request, or refuses it with one line."""
    if scope['type'] == 'lifespan':
      await self._app(scope, receive, send)
      return
    if scope['type'] != 'http':
      raise RuntimeError(f'The app has no {scope["type"]}.')

    async def guarded(message: Message) -> None:
      if message['type'] == 'http.response.start':
        self._protect(MutableHeaders(scope=message))
      await send(message)

    reason = self._reason(scope['method'], Headers(scope=scope))
    if reason:
      refusal = PlainTextResponse(f'{reason}\n', 403)
      await refusal(scope, receive, guarded)
    else:
      await self._app(scope, receive, guarded)

  def _reason(self, method: str, headers: Headers) -> str:
    """Why a request is refused; '' if it is not."""
    hosts = headers.getlist('host')
    if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
      return 'This server answers on 127.0.0.1 and localhost only.'
    if method in _SAFE:
      return ''
    if headers.getlist('origin') != [f'http://{hosts[0].lower()}']:
      return 'This request does not come from a page of this server.'
    return ''

  def _protect(self, headers: MutableHeaders) -> None:
    """Pages load scripts, styles and pictures from this server alone."""
    headers['Content-Security-Policy'] = '; '.join(
      (
        "default-src 'none'",
        f"script-src 'nonce-{self._nonce}' blob:",
        "style-src 'unsafe-inline'",
        'img-src data:',
        "connect-src 'self'",
        'worker-src blob:',
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
      )
    )
    headers['Cache-Control'] = 'no-store'
    headers['Cross-Origin-Opener-Policy'] = 'same-origin'
    headers['Cross-Origin-Resource-Policy'] = 'same-origin'
    headers['Referrer-Policy'] = 'no-referrer'
    headers['X-Content-Type-Options'] = 'nosniff'
