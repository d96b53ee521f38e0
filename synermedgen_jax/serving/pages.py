"""Pages from the templates in `templates`, in the look of the reports."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

from synermedgen_jax.core.modalities import Route
from synermedgen_jax.inference.sidecar import NOTICE
from synermedgen_jax.reporting.pictures import route_title
from synermedgen_jax.reporting.rendering import asset, environment
from synermedgen_jax.serving.model import Model

_FOLDER = Path(__file__).with_name('templates')


def new_nonce() -> str:
  """A nonce that allows the scripts of this server's pages."""
  return secrets.token_urlsafe(16)


def page(
  template: str, model: Model, *, limit: int, nonce: str, **values: Any
) -> str:
  """A page.

  Args:
    template: a file in `templates`.
    model: the model, whose routes can be selected.
    limit: bytes of an upload.
    nonce: allows the page's scripts.
    **values: further names that the template uses.
  """
  return (
    environment(_FOLDER)
    .get_template(template)
    .render(
      notice=NOTICE,
      model=model,
      limit=limit,
      nonce=nonce,
      routes=[_route(route) for route in model.routes],
      page=template,
      file=lambda name: asset(name, _FOLDER),
      route_title=route_title,
      **values,
    )
  )


def _route(route: Route) -> dict[str, list[str]]:
  """Value and label of each choice of a route."""
  choices = {
    'source': route.source,
    'region': route.region,
    'target': route.target,
  }
  return {name: [c.value, c.label] for name, c in choices.items()}
